//! What came in the last seconds, where looks are far apart: all that waits was produced within the lag.

use super::snapshot::ConnectorGroup;

/// Looks that are closer to each other say enough themselves, seconds.
const APART_S: f64 = 8.0;
/// Shorter lags are as long as their own rounding, seconds.
const SHORTEST_S: f64 = 2.0;
/// Longer ones say no more than the look itself does, as a share of the time between looks.
const LONGEST: f64 = 0.7;
/// Lags may be told in whole seconds: so much is lost in the mean.
const ROUNDED_S: f64 = 0.5;
/// The partitions that tell must carry this share of the load.
const TOLD: f64 = 0.5;

/// A load over the last seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Recent {
    /// Records/s.
    pub rate: f64,
    /// Over how many seconds.
    pub over_s: f64,
}

/// A group's load since its oldest record that waits was produced, by Little's law; `rates` are those over the last `span_s` seconds.
pub(super) fn recent(group: &ConnectorGroup, rates: impl Fn(&str, i32) -> Option<f64>, span_s: f64) -> Option<Recent> {
    if span_s < APART_S {
        return None;
    }
    let (mut all, mut told, mut newest, mut over) = (0.0, 0.0, 0.0, 0.0);
    for p in &group.partitions {
        let usual = rates(&p.topic, p.partition)?;
        all += usual;
        let (Some(end), Some(committed), Some(lag_ms)) = (p.end_offset, p.committed_offset, p.lag_ms) else { continue };
        let lag_s = lag_ms as f64 / 1000.0;
        if committed < 0 || !(SHORTEST_S..=span_s * LONGEST).contains(&lag_s) {
            continue;
        }
        told += usual;
        newest += (end - committed).max(0) as f64 / (lag_s + ROUNDED_S);
        over += usual * lag_s;
    }
    (told > 0.0 && told >= TOLD * all).then(|| Recent { rate: newest * all / told, over_s: over / told })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::snapshot::PartitionLoad;
    use super::*;

    fn group(partitions: &[(i64, Option<i64>)]) -> ConnectorGroup {
        let partition = |(place, (waits, lag_ms)): (usize, &(i64, Option<i64>))| PartitionLoad {
            topic: "t".to_owned(),
            partition: place as i32,
            end_offset: Some(1_000_000),
            high_watermark: None,
            committed_offset: Some(1_000_000 - waits),
            produced_records_per_s: None,
            produced_bytes_per_s: None,
            lag_ms: *lag_ms,
        };
        ConnectorGroup {
            connector: "c".to_owned(),
            assignor: None,
            protocol: None,
            state: None,
            trouble: None,
            partitions: partitions.iter().enumerate().map(partition).collect(),
        }
    }

    #[test]
    fn what_waits_came_within_the_lag() {
        // 100/s over the look of 30 s each, but 500/s in the last ten seconds.
        let load = recent(&group(&[(5_000, Some(9_500)), (5_000, Some(9_500))]), |_, _| Some(100.0), 30.0).unwrap();
        assert!((load.rate - 1_000.0).abs() < 1e-6 && (load.over_s - 9.5).abs() < 1e-6, "{load:?}");
        // One that does not tell is like the others.
        let load = recent(&group(&[(5_000, Some(9_500)), (5_000, None)]), |_, _| Some(100.0), 30.0).unwrap();
        assert!((load.rate - 1_000.0).abs() < 1e-6, "{load:?}");
    }

    #[test]
    fn lags_that_are_too_short_or_too_long_say_nothing() {
        for lag_ms in [0, 1_500, 25_000, 600_000] {
            assert_eq!(recent(&group(&[(5_000, Some(lag_ms))]), |_, _| Some(100.0), 30.0), None);
        }
        assert_eq!(recent(&group(&[(5_000, Some(3_000))]), |_, _| Some(100.0), 5.0), None, "looks every 5 s");
        assert_eq!(recent(&group(&[(5_000, Some(9_000)), (0, Some(0))]), |_, p| Some(if p == 0 { 1.0 } else { 100.0 }), 30.0), None);
    }
}
