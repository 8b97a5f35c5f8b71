//! `guarantee = "exactly-once"` as a whole: connectors against the mock cluster and the embedded BigQuery, whose rows are counted one by
//! one.

use std::time::Duration;

use millrace::embedded::bigquery::{FaultClass, Faults, Settings};
use millrace::pipeline::ConnectorState;

use super::rig::{Rig, SOON, json_connector, metric, wait_until};

fn exact(topic: &str) -> String {
    let toml = json_connector(&format!("\"{topic}\""), topic, &format!("{topic}.dead"));
    toml.replace("[delivery]", "[delivery]\nguarantee = \"exactly-once\"")
}

/// Every row once.
fn assert_once(rig: &Rig, table: &str, ids: std::ops::Range<i64>) {
    let found = rig.ids(table);
    assert_eq!(found.len() as i64, ids.end - ids.start, "rows of other records, or missing ones");
    let wrong: Vec<_> = ids.filter(|id| found.get(id) != Some(&1)).take(10).collect();
    assert!(wrong.is_empty(), "not once: {wrong:?}");
}

/// Every fault that loses an answer, ends a connection, or strikes the calls that make and end streams; a second worker comes and goes
/// meanwhile.
#[test]
fn faults_and_rebalances_leave_each_row_once() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("once", 4, 1);
    let faults = rig.bigquery.faults();
    let mut rates = faults.get();
    let classes = [
        FaultClass::LostAck,
        FaultClass::ConnectionDrain,
        FaultClass::Unavailable,
        FaultClass::Internal,
        FaultClass::SlowResponse,
        FaultClass::UnaryUnavailable,
        FaultClass::UnaryLostAnswer,
    ];
    rates.rates.extend(classes.map(|class| (class, 0.05)));
    rates.slow_ms = 50;
    faults.set(rates);
    let first = rig.start("once", &exact("once"));
    let mut produced = 0;
    let mut more = |rounds: i64| {
        for _ in 0..rounds {
            for partition in 0..4 {
                rig.send_ids("once", partition, produced..produced + 25);
                produced += 25;
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        produced
    };
    more(40);
    let second = rig.start("once", &exact("once"));
    more(40);
    second.wait_for_state(ConnectorState::Running, SOON);
    more(40);
    first.stop();
    more(40);
    // A fault of a partition's last append may end its stream, and a next one comes with the next rows: these meet none.
    faults.set(Faults::none());
    let all = more(1);
    // Not by `wait_for_ids`, which reads the table anew for each id.
    wait_until("all rows", SOON, || rig.ids("once").len() as i64 >= all);
    let status = second.status();
    let streams: Vec<_> = status.partitions.iter().filter_map(|partition| partition.stream.clone()).collect();
    assert!(streams.len() == 4 && streams.iter().all(|stream| stream.name.is_some()), "{streams:?}");
    second.stop();
    assert_once(&rig, "once", 0..all);
    let count = |name| metric(name, &[("connector", "once")]);
    assert!(count("millrace_exact_streams_created_total") >= 4.0 && count("millrace_exact_takeovers_total") >= 4.0);
    assert!(faults.fired().get(&FaultClass::LostAck).is_some_and(|fired| *fired > 0), "{:?}", faults.fired());
    assert_eq!(metric("millrace_possible_duplicate_rows_total", &[("table", "p.d.once")]), 0.0);
}

/// At least once, exactly once, at least once: each change takes over what it finds.
#[test]
fn a_changed_promise_doubles_nothing() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("changed", 2, 1);
    let mut end = 0;
    for toml in [
        json_connector("\"changed\"", "changed", "changed.dead"),
        exact("changed"),
        json_connector("\"changed\"", "changed", "changed.dead"),
    ] {
        let connector = rig.start("changed", &toml);
        for _ in 0..8 {
            rig.produce_ids("changed", (end % 2) as i32, end..end + 31);
            end += 31;
        }
        wait_until("all rows", SOON, || rig.ids("changed").len() as i64 >= end);
        connector.stop();
        assert_once(&rig, "changed", 0..end);
    }
}

/// Rows that BigQuery rejects are dead letters, and the rows around them land once.
#[test]
fn rejected_rows_go_and_the_others_land_once() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("rejected", 1, 1);
    rig.topic("rejected.dead", 1, 1);
    let toml = exact("rejected").replace("id = { type = \"INT64\" }", "id = { type = \"INT64\" }\nname = { type = \"STRING(3)\" }");
    let connector = rig.start("rejected", &toml);
    for id in 0..60 {
        let name = if id % 17 == 3 { "too long" } else { "ok" };
        rig.produce("rejected", 0, "k", format!("{{\"id\": {id}, \"name\": \"{name}\"}}").as_bytes(), &[]);
    }
    let bad = (0..60).filter(|id| id % 17 == 3).count();
    wait_until("all rows and letters", SOON, || rig.ids("rejected").len() == 60 - bad && connector.status().dead_letters == bad as u64);
    wait_until("committed", SOON, || connector.status().partitions.iter().all(|partition| partition.committed == Some(60)));
    connector.stop();
    assert!(rig.ids("rejected").values().all(|copies| *copies == 1));
    assert_eq!(rig.read_topic("rejected.dead", 1, bad).len(), bad);
}
