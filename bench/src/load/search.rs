//! The highest rate without loss (throughput, RFC 2544 §26.1), by bisection on a logarithmic scale.

use anyhow::Result;

/// The lowest and the highest rate that are tried, in datagrams per second.
const LOWEST: f64 = 10_000.0;
const HIGHEST: f64 = 1_280_000.0;
/// So many rates are tried, so that what is found is at most [`resolution`] away from the next one that was not.
const STEPS: u32 = 7;

/// Looks for the highest rate for which `passes` says yes, taking it that all lower ones pass and all higher ones do not.
/// 0 where not even the lowest rate that was tried passed.
pub(crate) fn highest(mut passes: impl FnMut(u64) -> Result<bool>) -> Result<f64> {
    let (mut low, mut high) = (LOWEST.ln(), HIGHEST.ln());
    let mut found = 0.0;
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        let rate = middle.exp().round();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between the two bounds"
        )]
        if passes(rate as u64)? {
            (low, found) = (middle, rate);
        } else {
            high = middle;
        }
    }
    Ok(found)
}

/// By how many percent the true rate may be higher than what is found.
pub(crate) fn resolution() -> f64 {
    100.0 * ((HIGHEST / LOWEST).powf(0.5_f64.powf(STEPS.into())) - 1.0)
}

/// How many rates are tried.
pub(crate) const fn steps() -> u32 {
    STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_that_passes_is_found_to_the_resolution() {
        for truth in [10_500.0, 47_000.0, 123_456.0, 1_200_000.0] {
            let mut tried = 0;
            let found = highest(|rate| {
                tried += 1;
                Ok(rate as f64 <= truth)
            })
            .unwrap();
            assert!(
                found <= truth && truth <= found * (1.0 + resolution() / 100.0) + 1.0,
                "{truth}: {found}"
            );
            assert_eq!(tried, STEPS);
        }
        assert!((3.0..4.0).contains(&resolution()));
    }

    #[test]
    fn who_passes_nothing_has_no_rate_and_who_passes_all_has_the_highest() {
        assert!(highest(|_| Ok(false)).unwrap().abs() < f64::EPSILON);
        assert!(highest(|_| Ok(true)).unwrap() > HIGHEST / (1.0 + resolution() / 100.0) - 1.0);
        assert!(highest(|_| anyhow::bail!("broken")).is_err());
    }
}
