//! When a count can be a share of all.

/// How far a count may be from what is expected, in standard deviations of a binomial: at 4.5 a correct split fails
/// about once in 150,000 checks.
const DEVIATIONS: f64 = 4.5;

/// Whether `seen` of `all` can come from a split that gives the fraction `share`. A share of 0 or 1 allows no deviation.
pub(crate) fn within(share: f64, seen: usize, all: usize) -> bool {
    let all = all as f64;
    let allowed = DEVIATIONS * (all * share * (1.0 - share)).max(0.0).sqrt();
    // The sum of a few floating point operations is not exact.
    (seen as f64 - all * share).abs() <= allowed + 1e-6
}

pub(super) fn check(share: f64, seen: usize, all: usize) -> Result<(), String> {
    if within(share, seen, all) {
        return Ok(());
    }
    let deviation = DEVIATIONS * (share * (1.0 - share) / all as f64).max(0.0).sqrt();
    let fraction = seen as f64 / all as f64;
    Err(format!("expected {share} ± {deviation:.4}, seen {fraction:.4} ({seen} of {all})"))
}
