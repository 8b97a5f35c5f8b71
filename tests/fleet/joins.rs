//! Workers that were asked for together join together, where each arrival would stop all; and nothing keeps one that waits from joining.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace::fleet::{JOIN_WAIT_MAX, JOINS, JoinHold, VERSION};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::rig::Rig;
use super::{leader, owned};
use crate::machine::{Watch, stood_still_between};

/// Above that of any leader of these fleets: what is said here counts, not what they say.
const TERM: u64 = 1_000;
/// Looks, logs and a busy machine.
const SLACK: Duration = Duration::from_secs(15);

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Says, as the leader of this term would, that workers from ordinal 1 on wait for so many seconds.
fn say(rig: &Rig, term: u64, seconds: i64) {
    let at_ms = now_ms();
    let leader = "worker-0".to_owned();
    let hold = JoinHold { v: VERSION, fleet: String::new(), term, leader, at_ms, until_ms: at_ms + seconds * 1000, from_ordinal: 1 };
    rig.write_state(JOINS, &serde_json::to_value(hold).unwrap());
}

fn connector(rig: &Rig, number: usize) -> Value {
    let status: Value = serde_json::from_str(&rig.get(number, "/status").1).unwrap();
    status["connectors"][0].clone()
}

fn state(rig: &Rig, number: usize) -> String {
    connector(rig, number)["state"].as_str().unwrap().to_owned()
}

/// How far apart workers 1 to 3 said this, which each says once: milliseconds in which the machine worked.
fn said(rig: &Rig, words: &str) -> i64 {
    let at = |number| {
        let log = rig.log(number);
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(words)).collect();
        assert_eq!(lines.len(), 1, "said once: {words}: {log}");
        let line: Value = serde_json::from_str(lines[0]).unwrap();
        chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).unwrap().timestamp_millis()
    };
    let times = [1, 2, 3].map(at);
    let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    last - first - stood_still_between(first, last).as_millis() as i64
}

/// How often a worker was given partitions.
fn assignments(rig: &Rig, number: usize) -> f64 {
    rig.metric(number, "millrace_rebalances_total{connector=\"numbers\",kind=\"assigned\"}").unwrap_or_default()
}

/// A fleet of worker 0 alone, which leads and owns everything.
fn alone() -> Rig {
    let mut rig = Rig::new("min = 1\nmax = 4");
    rig.by_ranges();
    rig.start(0);
    rig.wait_until("a leader that owns everything", |rig| {
        let fleet = rig.fleet(0);
        leader(&fleet).as_deref() == Some("worker-0") && owned(&fleet, "worker-0") == 4
    });
    // Its term is fixed by its first decision.
    rig.wait_until("a decision", |rig| rig.metric(0, "millrace_workers_desired").is_some());
    rig
}

/// What `millrace status` prints.
fn table(rig: &Rig, number: usize) -> String {
    String::from_utf8(rig.program(&["status", "--url", &rig.url(number)]).stdout).unwrap()
}

#[test]
fn workers_that_were_asked_for_together_join_together_and_stop_nobody_before() {
    let _watched = Watch::start();
    let mut rig = alone();
    let flow = rig.produce(200);
    say(&rig, TERM, 600);
    rig.wait_until("the hold", |rig| !rig.fleet(0)["joins_held_until_ms"].is_null());
    let before = assignments(&rig, 0);
    for number in [1, 2, 3] {
        rig.start(number);
        rig.wait_until("one that waits", |rig| state(rig, number) == "waiting");
        // Within less than a report's interval.
        rig.wait_until("a leader that knows", |rig| rig.metric(0, "millrace_workers_waiting") == Some(number as f64));
        // Pods come one after another.
        thread::sleep(Duration::from_secs(2));
    }
    assert_eq!(rig.metric(0, "millrace_workers_ready"), Some(1.0));
    let message = connector(&rig, 2)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("together with workers that are still on their way") && message.contains("UTC at the latest"), "{message}");
    let shown = table(&rig, 1);
    assert!(shown.contains("joining: worker-1, worker-2, worker-3 wait") && shown.contains("numbers waiting"), "{shown}");
    assert_eq!(rig.get(3, "/health/ready").0, 200, "a rolling upgrade goes on");
    assert_eq!((assignments(&rig, 0), owned(&rig.fleet(0), "worker-0")), (before, 4), "nobody was stopped");

    say(&rig, TERM, 0);
    rig.wait_until("a partition for each", |rig| (0..4).all(|number| owned(&rig.fleet(0), &format!("worker-{number}")) == 1));
    let (came, joined) = (said(&rig, "waits to join its group together"), said(&rig, "the leader says that all join now"));
    // How many rebalances a coordinator makes of it is its own affair: librdkafka's imitation does not wait for all who come meanwhile.
    println!("came within {came} ms, joined within {joined} ms: {} rebalances", assignments(&rig, 0) - before);
    assert!(came > 4_000 && joined < came / 2, "came within {came} ms, joined within {joined} ms");
    drop(flow);

    // The first start alone: what is told to start later starts at once.
    say(&rig, TERM, 600);
    rig.wait_until("the hold", |rig| !rig.fleet(3)["joins_held_until_ms"].is_null());
    rig.write_state("restart/numbers", &serde_json::json!({ "v": VERSION, "number": 7, "at_ms": now_ms() }));
    rig.wait_until("a restart on every worker", |rig| (0..4).all(|number| rig.log(number).matches("connector started").count() == 2));
    // A worker that was there before does not wait when it comes again.
    rig.kill(0);
    rig.start(0);
    rig.wait_until("it is back", |rig| state(rig, 0) == "running");
    assert!(!rig.log(0).contains("waits to join"));
}

#[test]
fn one_that_waits_follows_wishes_and_ends_when_it_is_told_to() {
    let mut rig = alone();
    say(&rig, TERM, 600);
    rig.wait_until("the hold", |rig| !rig.fleet(0)["joins_held_until_ms"].is_null());
    let wish =
        |rig: &Rig, state: &str| rig.write_state("connector/numbers", &serde_json::json!({ "v": 1, "state": state, "at_ms": now_ms() }));
    for number in [1, 2] {
        rig.start(number);
        rig.wait_until("one that waits", |rig| state(rig, number) == "waiting");
    }
    let asked = Watch::start();
    rig.terminate(2);
    rig.wait_for_end(2);
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    let log = rig.log(2);
    assert!(log.contains("worker stopped") && log.contains("the worker drains") && !log.contains("connector started"), "{log}");

    wish(&rig, "stopped");
    rig.wait_until("the stop, also of the one that waits", |rig| state(rig, 0) == "stopped" && state(rig, 1) == "stopped");
    rig.wait_until("the reason", |rig| rig.log(1).contains("its file or a wish says otherwise"));
    wish(&rig, "running");
    rig.wait_until("both run", |rig| [0, 1].iter().all(|number| state(rig, *number) == "running"));

    // A pause holds when it joins.
    rig.start(2);
    rig.wait_until("one that waits", |rig| state(rig, 2) == "waiting");
    wish(&rig, "paused");
    rig.wait_until("a pause", |rig| state(rig, 1) == "paused");
    say(&rig, TERM, 0);
    // Which of three gets two of four partitions is up to the ids that the broker gives its members.
    rig.wait_until("a member that takes nothing", |rig| state(rig, 2) == "paused" && owned(&rig.fleet(2), "worker-2") > 0);
}

#[test]
fn a_leader_that_dies_holds_nobody_for_longer_than_its_successor_needs() {
    let mut rig = alone();
    rig.kill(0);
    // The dead one's last word, an hour long.
    say(&rig, 1, 3_600);
    let asked = Watch::start();
    rig.start(1);
    rig.start(2);
    rig.wait_until("members", |rig| [1, 2].iter().all(|number| owned(&rig.fleet(*number), &format!("worker-{number}")) == 2));
    assert!(asked.elapsed() < JOIN_WAIT_MAX / 2, "{:?}", asked.elapsed());
    for number in [1, 2] {
        let log = rig.log(number);
        assert!(log.contains("waits to join its group together") && log.contains("the leader says that all join now"), "{log}");
    }
}

#[test]
fn where_nobody_leads_they_join_when_the_longest_wait_is_over() {
    let mut rig = alone();
    let _flow = rig.produce(50);
    say(&rig, TERM, 3_600);
    rig.wait_until("the hold", |rig| !rig.fleet(0)["joins_held_until_ms"].is_null());
    rig.start(1);
    rig.wait_until("one that waits", |rig| state(rig, 1) == "waiting");
    let (ready, worked) = (Instant::now(), Watch::start());
    // It keeps the lock: nobody leads, and its group's partitions are nobody's.
    kill_process(rig.pid(0), Signal::STOP).unwrap();
    while state(&rig, 1) == "waiting" {
        assert!(worked.elapsed() < JOIN_WAIT_MAX + SLACK, "{}", rig.log(1));
        thread::sleep(Duration::from_millis(500));
    }
    assert!(ready.elapsed() + SLACK > JOIN_WAIT_MAX, "{:?}", ready.elapsed());
    rig.wait_until("all that the other one had", |rig| owned(&rig.fleet(1), "worker-1") == 4);
    assert!(rig.log(1).contains("no worker waits longer than 120 s"));
}
