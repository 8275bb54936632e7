//! Median and range of a few figures.

use serde::Serialize;

/// What is said of several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
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
        let middle = figures.len() / 2;
        let upper = *figures.get(middle)?;
        let lower = figures[(figures.len() - 1) / 2];
        Some(Self {
            median: f64::midpoint(lower, upper),
            min: *figures.first()?,
            max: *figures.last()?,
            rounds: figures.len(),
        })
    }
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
}
