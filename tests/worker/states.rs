//! What a connector's state says of its group and its brokers.

use std::time::Duration;

use millrace::embedded::bigquery::Settings;
use millrace::pipeline::ConnectorState;

use super::rig::{Rig, SOON, json_connector, metric};
use crate::machine::Watch;

/// Brokers away while partitions are owned: said within seconds, not called running or stalled, over when they are back.
#[test]
fn brokers_that_are_away_are_said_and_forgotten_when_they_are_back() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("away", 2, 1);
    rig.produce_ids("away", 0, 0..20);
    let connector = rig.start("away", &json_connector("\"away\"", "away", "away.dead"));
    rig.wait_for_ids("away", 0..20);
    let labels = [("connector", "away")];
    connector.wait_for_state(ConnectorState::Running, SOON);
    assert_eq!(metric("millrace_brokers_unreachable", &labels), 0.0);
    let down = Watch::start();
    rig.mock.broker_down(1).unwrap();
    let status = connector.wait_for_state(ConnectorState::Unreachable, Duration::from_secs(15));
    println!("said after {:?}", down.elapsed());
    let message = status.message.unwrap();
    assert!(message.starts_with("brokers unreachable since 20") && message.contains("is not known"), "{message}");
    assert!(status.partitions.iter().all(|partition| partition.lag_records.is_none()), "nobody knows the lag: {:?}", status.partitions);
    assert_eq!(metric("millrace_brokers_unreachable", &labels), 1.0);
    rig.mock.broker_up(1).unwrap();
    let status = connector.wait_for_state(ConnectorState::Running, SOON);
    assert_eq!(status.message, None, "Kafka's complaints are over");
    assert_eq!(metric("millrace_brokers_unreachable", &labels), 0.0);
    rig.produce_ids("away", 1, 20..40);
    rig.wait_for_ids("away", 0..40);
    connector.stop();
}

fn a_second_member_of_a_group_with_one_partition_is_idle(protocol: &str) {
    let mut rig = Rig::new(1, Settings::default());
    rig.set("kafka", "group.protocol", protocol);
    if protocol == "classic" {
        rig.set("kafka", "session.timeout.ms", 10_000);
    }
    let topic = format!("one-{protocol}");
    rig.topic(&topic, 1, 1);
    let toml = json_connector(&format!("\"{topic}\""), &format!("one_{protocol}"), "one.dead");
    let first = rig.start(&topic, &toml);
    first.wait_for_state(ConnectorState::Running, SOON);
    let second = rig.start(&topic, &toml);
    let both = || [first.status().state, second.status().state];
    super::rig::wait_until("one runs, one is idle", SOON, || {
        let states = both();
        states.contains(&ConnectorState::Running) && states.contains(&ConnectorState::Idle)
    });
    let idle = if first.status().state == ConnectorState::Idle { first.status() } else { second.status() };
    assert_eq!((idle.message, idle.partitions.len()), (None, 0));
    rig.mock.broker_down(1).unwrap();
    second.wait_for_state(ConnectorState::Unreachable, SOON);
    rig.mock.broker_up(1).unwrap();
    super::rig::wait_until("as before", Duration::from_secs(40), || {
        let states = both();
        states.contains(&ConnectorState::Running) && states.contains(&ConnectorState::Idle)
    });
}

#[test]
fn a_member_without_partitions_is_idle_consumer_protocol() {
    a_second_member_of_a_group_with_one_partition_is_idle("consumer");
}

#[test]
fn a_member_without_partitions_is_idle_classic_protocol() {
    a_second_member_of_a_group_with_one_partition_is_idle("classic");
}
