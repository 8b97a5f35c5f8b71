//! The dead-letter topic is down: the partitions that have dead letters hold and say so, the others go on, and no letter is written twice.

use std::time::Duration;

use millrace::embedded::bigquery::Settings;
use millrace::pipeline::ConnectorState;
use rdkafka::message::Message;

use super::rig::{Rig, SOON, header, json_connector, metric};
use crate::machine::Watch;

#[test]
fn only_the_partitions_concerned_hold_within_5_s_and_go_on_by_themselves() {
    let rig = Rig::new(2, Settings::default());
    rig.topic("letters", 2, 1);
    rig.topic("letters.dead", 1, 2);
    rig.coordinator("connect-letters", 1);
    rig.produce_ids("letters", 0, 0..10);
    rig.produce_ids("letters", 1, 100..110);
    let connector = rig.start("letters", &json_connector("\"letters\"", "letters", "letters.dead"));
    rig.wait_for_ids("letters", 0..10);
    rig.wait_for_ids("letters", 100..110);
    // The producer has met its topic before the broker goes.
    rig.produce("letters", 0, "first", b"{ bad", &[]);
    super::rig::wait_until("the first letter", SOON, || metric("millrace_dead_letters_total", &[("connector", "letters")]) == 1.0);
    rig.mock.broker_down(2).unwrap();
    rig.produce_ids("letters", 0, 10..15);
    for key in ["second", "third"] {
        rig.produce("letters", 0, key, b"{ bad", &[]);
    }
    rig.produce_ids("letters", 0, 15..20);
    let produced = Watch::start();
    let held = |partition: i32| {
        let status = connector.status();
        status.partitions.iter().find(|p| p.partition == partition).and_then(|p| p.hold.clone())
    };
    super::rig::wait_until("the hold", Duration::from_secs(5), || held(0).is_some_and(|hold| hold.cause == "dead_letter_topic"));
    println!("held after {:?}: {}", produced.elapsed(), held(0).unwrap().message);
    assert!(held(0).unwrap().message.contains("letters.dead"), "{:?}", held(0));
    rig.produce_ids("letters", 1, 110..150);
    rig.wait_for_ids("letters", 110..150);
    assert_eq!(held(1), None, "its rows go on");
    // Longer than a time limit of a producer would be pleasant; the letters stay on their way.
    std::thread::sleep(Duration::from_secs(4));
    rig.mock.broker_up(2).unwrap();
    connector.wait_for_state(ConnectorState::Running, SOON);
    rig.produce_ids("letters", 0, 20..30);
    rig.wait_for_ids("letters", 0..30);
    let letters = rig.read_topic("letters.dead", 1, 3);
    let mut keys: Vec<String> = letters.iter().map(|l| String::from_utf8_lossy(l.key().unwrap_or_default()).into_owned()).collect();
    // Each is a task of its own: their order is nobody's promise.
    keys.sort_unstable();
    assert_eq!(keys, ["first", "second", "third"], "each letter once");
    assert!(letters.iter().all(|letter| header(letter, "__connect.errors.exception.class.name") == "InvalidJson"));
    assert!(rig.ids("letters").values().all(|copies| *copies == 1), "{:?}", rig.ids("letters"));
    assert_eq!(metric("millrace_possible_duplicate_rows_total", &[("table", "p.d.letters")]), 0.0);
    connector.stop();
}
