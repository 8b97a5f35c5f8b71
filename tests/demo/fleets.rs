//! Demos whose fleet sizes itself.

use serde_json::Value;

use super::demos::{assert_complete, demo, number};
use super::turn;

/// (from, to) of every resize; each has a reason.
fn resizes(report: &Value) -> Vec<(u64, u64)> {
    let resize = |decision: &Value| {
        assert!(decision["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{decision}");
        assert!(number(decision, "term") > 0 && decision["leader"].is_string(), "{decision}");
        (number(decision, "from"), number(decision, "to"))
    };
    report["decisions"].as_array().unwrap().iter().map(resize).collect()
}

#[test]
fn the_fleet_grows_under_a_step_and_shrinks_after_it() {
    let _turn = turn();
    let (exit, report, all) =
        demo("--for 50s --load step --rate 5000 --capacity 2000 --partitions 6 --workers 1 --max-workers 4 --scale on");
    assert_complete(exit, &report, &all);
    let resizes = resizes(&report);
    assert!(resizes.iter().any(|(from, to)| to > from) && resizes.iter().any(|(from, to)| to < from), "{all}");
    let most = report["workers"]["max"].as_u64().unwrap();
    assert!((3..=4).contains(&most), "5000 records a second at 2000 each, 4 at most: {all}");
    assert!(number(&report, "departures") > 0, "{all}");
    assert_eq!(number(&report, "refused_departures"), 0, "a worker that drains commits, so that nothing comes twice: {all}");
    let (paid, each) = (report["worker_seconds"].as_f64().unwrap(), report["worker_seconds_one_per_partition"].as_f64().unwrap());
    assert!(paid > 0.0 && paid < 0.7 * each, "{paid} worker-seconds of {each}: {all}");
}

#[test]
fn when_the_leader_is_killed_another_decides() {
    let _turn = turn();
    let (exit, report, all) = demo(
        "--for 34s --load step --rate 4000 --capacity 2000 --partitions 4 --workers 2 --max-workers 4 --scale on --kill-every 9s --seed 7",
    );
    assert_complete(exit, &report, &all);
    assert!(number(&report, "kills") >= 2 && number(&report, "leader_kills") >= 1, "{all}");
    assert!(number(&report, "terms") >= 2, "nobody but the first leader decided: {all}");
}
