//! Workers that know of each other, and a leader that measures, decides and resizes: the real program on the embedded broker, in local mode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod administration;
mod joins;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../machine/mod.rs"]
mod machine;
mod observe;
#[allow(dead_code, reason = "each folder uses its part of it")]
#[path = "../program/mod.rs"]
mod program;
mod rig;
mod wedged;
mod wishes;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use machine::Watch;
use millrace::config::{KafkaValue, ScalingConfig, ScalingMode};
use millrace::fleet::{Exchange, FleetView, Identity};
use millrace::flow::SystemClock;
use millrace::kafka::ClusterSettings;
use rig::{PARTITIONS, RECORD_BYTES, Rig};
use serde_json::Value;

/// The names of the workers in this state, by `GET /fleet` of one of them.
fn in_state(fleet: &Value, presence: &str) -> Vec<String> {
    let workers = fleet["workers"].as_array().unwrap();
    workers.iter().filter(|w| w["presence"] == presence).map(|w| w["report"]["worker"].as_str().unwrap().to_owned()).collect()
}

fn leader(fleet: &Value) -> Option<String> {
    (fleet["leader"]["stale"] == false).then(|| fleet["leader"]["worker"].as_str().map(str::to_owned)).flatten()
}

/// Owners of the connector's partitions, by what workers report.
fn owned(fleet: &Value, worker: &str) -> usize {
    let workers = fleet["workers"].as_array().unwrap();
    let reports = workers.iter().filter(|w| w["report"]["worker"] == worker).flat_map(|w| w["report"]["connectors"].as_array().unwrap());
    reports.map(|c| c["partitions"].as_array().unwrap().len()).sum()
}

#[test]
fn any_worker_knows_all_and_says_who_is_gone() {
    let mut rig = Rig::new("min = 1\nmax = 4");
    let flow = rig.produce(400);
    rig.start(0);
    rig.wait_until("a leader", |rig| leader(&rig.fleet(0)).as_deref() == Some("worker-0"));
    rig.start(1);
    for number in [0, 1] {
        rig.wait_until("both workers in both answers", |rig| in_state(&rig.fleet(number), "live") == ["worker-0", "worker-1"]);
        rig.wait_until("partitions with both", |rig| {
            let fleet = rig.fleet(number);
            owned(&fleet, "worker-0") == 2 && owned(&fleet, "worker-1") == 2
        });
    }
    // What the leader measures, as the other worker tells it.
    rig.wait_until("rates of all partitions", |rig| {
        let fleet = rig.fleet(1);
        let connector = &fleet["connectors"][0];
        let all = |field: &str| connector["partitions"].as_array().is_some_and(|all| all.iter().all(|p| !p[field].is_null()));
        connector["produced_records_per_s"].as_f64().is_some_and(|rate| (rate - 400.0).abs() < 100.0)
            && connector["consumed_records_per_s"].as_f64().is_some_and(|rate| rate > 200.0)
            && ["end_offset", "committed_offset", "lag_records", "lag_ms", "bytes_per_record", "owner"].iter().all(|field| all(field))
    });
    let fleet = rig.fleet(1);
    let partitions = fleet["connectors"][0]["partitions"].as_array().unwrap();
    assert_eq!(partitions.len() as i32, PARTITIONS);
    for partition in partitions {
        assert!((partition["bytes_per_record"].as_f64().unwrap() - RECORD_BYTES).abs() < 0.01, "{partition}");
        assert!(partition["lag_ms"].as_i64().unwrap() < 20_000, "{partition}");
    }
    assert!(fleet["workers"][0]["report"]["busy_fraction"].as_f64().is_some_and(|busy| (0.0..=1.0).contains(&busy)), "{fleet}");
    // A leader's gauges are the leader's alone.
    rig.wait_until("the gauges", |rig| rig.metric(0, "millrace_leader") == Some(1.0) && rig.metric(1, "millrace_leader") == Some(0.0));
    rig.wait_until("desired workers", |rig| rig.metric(0, "millrace_workers_desired").is_some());
    rig.wait_until("both ready", |rig| rig.metric(0, "millrace_workers_ready") == Some(2.0));
    let lag = "millrace_fleet_partition_lag_seconds{connector=\"numbers\",topic=\"numbers\",partition=\"0\"}";
    assert!(rig.metric(0, lag).is_some());
    assert!(rig.metric(1, "millrace_workers_desired").is_none() && rig.metric(1, lag).is_none());
    // The command, on the worker that does not lead.
    rig.wait_until("both by the command", |rig| {
        let json = rig.program(&["status", "--json", "--url", &rig.url(1)]);
        json.status.success() && in_state(&serde_json::from_slice(&json.stdout).unwrap(), "live").len() == 2
    });
    // A report that came late on a busy machine: at the next one both live again.
    rig.wait_until("the table", |rig| {
        let table = String::from_utf8(rig.program(&["status", "--url", &rig.url(1)]).stdout).unwrap();
        println!("{table}");
        ["2 workers live", "worker-0", "worker-1", "numbers", "leader: worker-0", "reason: "].iter().all(|part| table.contains(part))
    });

    rig.kill(0);
    rig.wait_until("the killed one is stale, and replaced as the leader", |rig| {
        let fleet = rig.fleet(1);
        in_state(&fleet, "stale") == ["worker-0"] && leader(&fleet).as_deref() == Some("worker-1")
    });
    rig.wait_until("the gauges", |rig| {
        rig.metric(1, "millrace_workers_stale") == Some(1.0) && rig.metric(1, "millrace_workers_desired").is_some()
    });
    rig.start(0);
    rig.wait_until("it is back", |rig| {
        in_state(&rig.fleet(1), "live") == ["worker-0", "worker-1"] && in_state(&rig.fleet(0), "live").len() == 2
    });
    drop(flow);
}

#[test]
fn the_leader_resizes_and_hands_over_at_once_when_it_stops() {
    let mut rig = Rig::new("min = 2\nmax = 4\nworker_cost_per_hour = 0.5");
    rig.start(0);
    rig.wait_until("the least number of workers", |rig| rig.replicas() == 2);
    rig.wait_until("the decision in the state topic", |rig| {
        let fleet = rig.fleet(0);
        let decisions = fleet["decisions"].as_array().unwrap();
        decisions.iter().any(|decision| decision["replicas_before"] == 1 && decision["replicas"] == 2 && decision["leader"] == "worker-0")
    });
    rig.wait_until("costs", |rig| rig.metric(0, "millrace_cost_per_hour{of=\"chosen\"}") == Some(1.0));
    assert!(rig.metric(0, "millrace_decisions_total{kind=\"up\"}").is_some_and(|ups| ups >= 1.0));
    assert_eq!(rig.metric(0, "millrace_resizes_total{outcome=\"done\"}"), Some(1.0));
    rig.start(1);
    rig.wait_until("both", |rig| in_state(&rig.fleet(1), "live").len() == 2);
    // A fresh worker knows past decisions: they stand in the compacted topic.
    rig.wait_until("the decision, at the other", |rig| rig.fleet(1)["decisions"].as_array().is_some_and(|all| !all.is_empty()));
    rig.terminate(0);
    let asked = Watch::start();
    rig.wait_until("another leader", |rig| rig.metric(1, "millrace_leader") == Some(1.0));
    let took = asked.elapsed();
    rig.wait_for_end(0);
    assert!(took < Duration::from_secs(5), "{took:?}: the lock is free as soon as the leader is told to stop");
    rig.wait_until("the one that left is no longer shown", |rig| {
        let fleet = rig.fleet(1);
        in_state(&fleet, "live") == ["worker-1"] && in_state(&fleet, "stale").is_empty()
    });
    assert_eq!(rig.replicas(), 2, "a worker that stops is no reason to ask for another number");
}

#[test]
fn a_lock_file_that_is_made_anew_does_not_put_new_decisions_behind_old_ones() {
    let mut rig = Rig::new("min = 1\nmax = 4");
    let newest = |rig: &Rig| {
        let fleet = rig.fleet(0);
        Some((fleet["decisions"][0]["term"].as_u64()?, fleet["decisions"][0]["number"].as_u64()?))
    };
    for term in [1, 2] {
        rig.start(0);
        rig.wait_until("a decision of this term", |rig| newest(rig).is_some_and(|newest| newest.0 == term));
        if term == 1 {
            rig.terminate(0);
            rig.wait_for_end(0);
        }
    }
    let before = newest(&rig).unwrap();
    std::fs::remove_file(rig.path("lock")).unwrap();
    // The new file counts from 1, the fleet does not.
    rig.wait_until("a newer decision", |rig| newest(rig).is_some_and(|newest| newest.0 == 3));
    assert_eq!(newest(&rig).unwrap().1, before.1 + 1);
    assert!(std::fs::read_to_string(rig.path("lock")).unwrap().starts_with("1 "));
    rig.wait_until("its measure", |rig| rig.fleet(0)["leader"]["term"] == 3);
}

#[test]
fn topics_that_cannot_be_reached_are_said_and_tried_again() {
    let scaling = ScalingConfig { mode: ScalingMode::Observe, ..ScalingConfig::default() };
    let identity = Identity { name: "w".to_owned(), ordinal: None };
    let view = Arc::new(FleetView::new(identity, &scaling, Arc::new(SystemClock::new())));
    let nowhere = KafkaValue::Text("127.0.0.1:1".to_owned());
    let cluster = ClusterSettings { kafka: [("bootstrap.servers".to_owned(), nowhere)].into(), ..ClusterSettings::default() };
    let exchange = Exchange::start(&cluster, &scaling, view.clone()).unwrap();
    let begun = Watch::start();
    let trouble = loop {
        let trouble = view.status().trouble.unwrap();
        if trouble.contains("cannot be read") {
            break trouble;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{trouble}");
        thread::sleep(Duration::from_millis(100));
    };
    assert!(trouble.contains("millrace.reports"), "{trouble}");
    assert!(!exchange.is_ready());
    exchange.stop();
}
