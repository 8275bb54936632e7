//! Median, quartiles and range of a few figures.

use serde::Serialize;

/// What is said of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) mean: f64,
    /// The first and the third quartile, interpolated between neighbours.
    pub(crate) quartiles: [f64; 2],
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// How many rounds there were.
    pub(crate) rounds: usize,
}

impl Summary {
    /// `None` where there is no figure.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<_> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Some(Self {
            median: quantile(&figures, 2)?,
            mean: figures.iter().sum::<f64>() / figures.len() as f64,
            quartiles: [quantile(&figures, 1)?, quantile(&figures, 3)?],
            min: *figures.first()?,
            max: *figures.last()?,
            rounds: figures.len(),
        })
    }
}

/// So many quarters of the way through sorted figures.
fn quantile(sorted: &[f64], quarters: usize) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? * quarters;
    let (below, part) = (sorted.get(place / 4)?, (place % 4) as f64 / 4.0);
    let above = sorted.get(place / 4 + 1).unwrap_or(below);
    Some(below + (above - below) * part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(Summary::of([]), None);
        assert_eq!(Summary::of([3.0, 1.0, 2.0]).map(|of| (of.median, of.min, of.max)), Some((2.0, 1.0, 3.0)));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]).map(|of| of.median), Some(2.5));
    }

    #[test]
    fn what_happens_once_in_a_while_is_in_the_mean() {
        let found = Summary::of([0.0, 0.0, 5.0, 0.0, 0.0]).map(|of| (of.median, of.mean));
        assert_eq!(found, Some((0.0, 1.0)));
    }

    #[test]
    fn quartiles_lie_between_their_neighbours() {
        let of = |figures: &[f64]| Summary::of(figures.iter().copied()).map(|summary| summary.quartiles);
        assert_eq!(of(&[7.0]), Some([7.0, 7.0]));
        assert_eq!(of(&[5.0, 1.0, 4.0, 2.0, 3.0]), Some([2.0, 4.0]));
        assert_eq!(of(&[1.0, 2.0]), Some([1.25, 1.75]));
    }
}
