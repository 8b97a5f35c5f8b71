//! Connector files change while the real program runs: only what changed restarts, mistakes cost nothing, nothing is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../program/mod.rs"]
mod program;
mod rig;

use std::fs;
use std::thread;
use std::time::Duration;

use rig::{PARTITIONS, Rig, connector};
use rustix::process::Signal;

/// Every number below `count` is there once; of a connector that ran through, a second time would be a restart that nobody wanted.
fn assert_complete(rig: &Rig, name: &str, count: i64) {
    rig.wait_until(&format!("all of {name}"), |rig| rig.numbers(name).len() as i64 == count);
    let numbers = rig.numbers(name);
    assert!(numbers.keys().copied().eq(0..count), "{name}: other numbers than 0 to {count}");
    let twice = numbers.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "{name}: numbers that came twice");
}

fn owns_all(rig: &Rig, names: &[&str]) -> bool {
    let connectors = rig.connectors();
    connectors.len() == names.len() && names.iter().all(|name| connectors.get(*name) == Some(&(PARTITIONS as usize)))
}

fn reloads(rig: &Rig, name: &str, outcome: &str) -> f64 {
    rig.metric("millrace_connector_reloads_total", &[&format!("connector=\"{name}\""), &format!("outcome=\"{outcome}\"")])
}

fn rebalances(rig: &Rig, name: &str) -> f64 {
    rig.metric("millrace_rebalances_total", &[&format!("connector=\"{name}\"")])
}

#[test]
fn a_changed_file_restarts_its_connector_alone() {
    let mut rig = Rig::new(&["a", "b", "c"]);
    rig.publish(&[("a", &connector("a", "50ms")), ("b", &connector("b", "50ms"))]);
    rig.start();
    rig.wait_until("all partitions", |rig| owns_all(rig, &["a", "b"]));
    let flow = rig.produce(&["a", "b"]);
    rig.wait_until("rows", |rig| rig.numbers("a").len() > 200 && rig.numbers("b").len() > 200);
    let before = rebalances(&rig, "b");
    assert!(before > 0.0 && reloads(&rig, "a", "restarted") == 0.0);

    rig.publish(&[("a", &connector("a", "60ms")), ("b", &connector("b", "50ms"))]);
    rig.wait_until("the restart", |rig| reloads(rig, "a", "restarted") == 1.0 && owns_all(rig, &["a", "b"]));
    let at = flow.count();
    rig.wait_until("rows after it", |rig| rig.numbers("a").keys().last().is_some_and(|last| *last > at + 200));
    assert_eq!(rebalances(&rig, "b"), before, "b's group was disturbed");
    assert_eq!(reloads(&rig, "b", "restarted"), 0.0);

    // Comments mean nothing; that they were looked at shows by `c`, which comes with them.
    let commented = format!("# why\n{}", connector("a", "60ms"));
    rig.publish(&[("a", &commented), ("b", &connector("b", "50ms")), ("c", &connector("c", "50ms"))]);
    rig.wait_until("c", |rig| reloads(rig, "c", "started") == 1.0 && owns_all(rig, &["a", "b", "c"]));
    assert_eq!(reloads(&rig, "a", "restarted"), 1.0);

    let count = flow.stop();
    assert_complete(&rig, "a", count);
    assert_complete(&rig, "b", count);
    assert_eq!(rebalances(&rig, "b"), before);
    rig.stop();
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_is_shown() {
    let mut rig = Rig::new(&["a", "b"]);
    let file = rig.path("connectors/a.toml");
    for name in ["a", "b"] {
        fs::write(rig.path(&format!("connectors/{name}.toml")), connector(name, "50ms")).unwrap();
    }
    rig.start();
    rig.wait_until("all partitions", |rig| owns_all(rig, &["a", "b"]));
    let flow = rig.produce(&["a", "b"]);
    rig.wait_until("rows", |rig| rig.numbers("a").len() > 100);
    let before = (rebalances(&rig, "a"), rebalances(&rig, "b"));

    // Written in pieces, each of them a file without a mistake: none is taken before it stays.
    for piece in 0..12 {
        fs::write(&file, connector("a", &format!("{}ms", 100 + piece))).unwrap();
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(reloads(&rig, "a", "restarted"), 0.0, "a file was taken that was still written");

    fs::write(&file, connector("a", "50ms").replace("topics", "topcs")).unwrap();
    rig.signal(Signal::HUP);
    let mistakes = |rig: &Rig| rig.status()["configuration"]["mistakes"].as_array().unwrap().clone();
    rig.wait_until("the mistake in /status", |rig| !mistakes(rig).is_empty());
    let shown = mistakes(&rig)[0].clone();
    assert_eq!(shown["connector"], "a");
    assert!(shown["message"].as_str().unwrap().contains("a.toml:1:1: topcs: unknown key"), "{shown}");
    let (code, health) = rig.get("/health/ready");
    assert!(code == 200 && health.contains("topcs"), "{code} {health}");
    rig.wait_until("the metric", |rig| rig.metric("millrace_connector_file_refused", &["connector=\"a\""]) == 1.0);
    assert!(reloads(&rig, "a", "refused") == 1.0 && rig.logged("connector file refused").is_some());

    // The folder away: nothing changes either.
    fs::rename(rig.path("connectors"), rig.path("away")).unwrap();
    rig.wait_until("the folder in /status", |rig| mistakes(rig).iter().any(|mistake| mistake["connector"].is_null()));
    let at = flow.count();
    rig.wait_until("rows meanwhile", |rig| ["a", "b"].iter().all(|n| rig.numbers(n).keys().last().is_some_and(|last| *last > at)));
    assert_eq!((rebalances(&rig, "a"), rebalances(&rig, "b")), before);
    assert!(owns_all(&rig, &["a", "b"]));

    // Mended.
    fs::write(rig.path("away/a.toml"), connector("a", "70ms")).unwrap();
    fs::rename(rig.path("away"), rig.path("connectors")).unwrap();
    rig.wait_until("the mended file", |rig| {
        mistakes(rig).is_empty() && reloads(rig, "a", "restarted") == 1.0 && owns_all(rig, &["a", "b"])
    });

    // What only a restart takes is said, and taken by none.
    fs::write(rig.path("millrace.toml"), format!("{}shards = 2\n", rig.fleet())).unwrap();
    rig.wait_until("the notice", |rig| rig.status()["configuration"]["restart_needed"].is_string());
    rig.wait_until("its metric", |rig| rig.metric("millrace_restart_needed", &[]) == 1.0);

    let count = flow.stop();
    assert_complete(&rig, "a", count);
    assert_complete(&rig, "b", count);
    assert_eq!(rebalances(&rig, "b"), before.1);
    rig.stop();
}

#[test]
fn a_removed_file_drains_and_commits_and_comes_back_where_it_left() {
    let mut rig = Rig::new(&["a", "b"]);
    let (a, b) = (connector("a", "50ms"), connector("b", "50ms"));
    rig.publish(&[("a", &a), ("b", &b)]);
    rig.start();
    rig.wait_until("all partitions", |rig| owns_all(rig, &["a", "b"]));
    let flow = rig.produce(&["a", "b"]);
    rig.wait_until("rows", |rig| rig.numbers("b").len() > 200);
    let before = rebalances(&rig, "a");

    rig.publish(&[("a", &a)]);
    rig.wait_until("the end of b", |rig| reloads(rig, "b", "stopped") == 1.0 && owns_all(rig, &["a"]));
    let landed = rig.numbers("b").len() as i64;
    assert_eq!(rig.committed("b"), landed, "what b wrote and what it committed");
    let at = flow.count();
    rig.wait_until("rows of a", |rig| rig.numbers("a").keys().last().is_some_and(|last| *last > at + 100));
    assert_eq!(rig.numbers("b").len() as i64, landed, "b still writes");

    rig.publish(&[("a", &a), ("b", &b)]);
    rig.wait_until("b again", |rig| reloads(rig, "b", "started") == 1.0 && owns_all(rig, &["a", "b"]));
    assert_eq!(rebalances(&rig, "a"), before);
    let count = flow.stop();
    assert_complete(&rig, "a", count);
    assert_complete(&rig, "b", count);
    rig.stop();
}

#[test]
fn a_worker_begins_without_the_bad_file_and_a_stop_amid_a_change_is_clean() {
    let mut rig = Rig::new(&["a", "b"]);
    rig.publish(&[("a", &connector("a", "50ms")), ("b", "topics = [")]);
    rig.start();
    rig.wait_until("a", |rig| owns_all(rig, &["a"]));
    assert_eq!(rig.status()["configuration"]["mistakes"][0]["connector"], "b");
    let flow = rig.produce(&["a", "b"]);
    rig.publish(&[("a", &connector("a", "50ms")), ("b", &connector("b", "50ms"))]);
    rig.wait_until("b, mended", |rig| owns_all(rig, &["a", "b"]));
    rig.wait_until("rows", |rig| rig.numbers("a").len() > 200 && rig.numbers("b").len() > 200);

    rig.publish(&[("a", &connector("a", "60ms")), ("b", &connector("b", "60ms"))]);
    rig.signal(Signal::HUP);
    rig.wait_until("the change", |rig| rig.logged("draining before it starts anew").is_some());
    rig.stop();
    for name in ["a", "b"] {
        assert_eq!(rig.committed(name), rig.numbers(name).len() as i64, "{name}: what it wrote and what it committed");
    }

    rig.start();
    let count = flow.stop();
    assert_complete(&rig, "a", count);
    assert_complete(&rig, "b", count);
    rig.stop();
}
