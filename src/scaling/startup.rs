//! How long workers take to come, as a model: 88 % of the pods that were measured were ready in 10 to 50 s, the rest within 120 s
//! (Landau et al., arXiv 2402.06085; few took longer).

/// Nobody comes sooner, seconds.
pub(super) const FIRST_S: f64 = 10.0;
/// Within so many seconds after the first the usual ones come.
pub(super) const USUAL_S: f64 = 40.0;
/// Within so many seconds after those the slow ones come.
pub(super) const SLOW_S: f64 = 70.0;
/// The share of the usual ones.
pub(super) const USUAL: f64 = 0.88;

/// The share of workers that have started so many seconds after they were asked for.
pub(super) fn started(after_s: f64) -> f64 {
    let usual = ((after_s - FIRST_S) / USUAL_S).clamp(0.0, 1.0);
    let slow = ((after_s - FIRST_S - USUAL_S) / SLOW_S).clamp(0.0, 1.0);
    USUAL * usual + (1.0 - USUAL) * slow
}

/// The share of those who have not come after `age_s` that come within `more_s` from then; half of those who should all be there.
pub(super) fn starts_within(age_s: f64, more_s: f64) -> f64 {
    let missing = 1.0 - started(age_s);
    if missing > 1e-6 { (started(age_s + more_s) - started(age_s)) / missing } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_come_within_fifty_seconds_and_all_within_two_minutes() {
        assert!(started(10.0).abs() < 1e-9 && (started(30.0) - 0.44).abs() < 1e-9);
        assert!((started(50.0) - 0.88).abs() < 1e-9 && (started(120.0) - 1.0).abs() < 1e-9 && (started(900.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_is_late_already_is_likely_to_be_very_late() {
        assert!((starts_within(0.0, 30.0) - 0.44).abs() < 1e-9);
        assert!(starts_within(48.0, 5.0) < starts_within(40.0, 10.0));
        assert!(starts_within(50.0, 5.0) < 0.08, "one of the slow ones");
        assert!((starts_within(200.0, 5.0) - 0.5).abs() < 1e-9, "beyond what is known");
    }
}
