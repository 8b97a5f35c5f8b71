//! Who gives partitions to a connector's members, and what a rebalance stops: read from Kafka properties. Pure.

use std::collections::BTreeMap;

use crate::config::KafkaValue;
use crate::scaling::{Assignor, RebalanceProtocol};

/// Who gives partitions to a connector's members, and what a rebalance stops: by its properties, which win over the fleet's. librdkafka's
/// other assignor, `roundrobin`, balances by count as `range` does, and is eager.
pub(super) fn assignment(
    fleet: &BTreeMap<String, KafkaValue>,
    own: &BTreeMap<String, KafkaValue>,
) -> (Option<Assignor>, Option<RebalanceProtocol>) {
    let property = |name: &str| own.get(name).or_else(|| fleet.get(name)).map(KafkaValue::to_property);
    let classic = |strategy: &str| match strategy.split(',').next().unwrap_or_default().trim() {
        "cooperative-sticky" => (Some(Assignor::CooperativeSticky), Some(RebalanceProtocol::Cooperative)),
        _ => (Some(Assignor::Range), Some(RebalanceProtocol::Eager)),
    };
    if property("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer")) {
        let range = property("group.remote.assignor").is_some_and(|assignor| assignor == "range");
        return (Some(if range { Assignor::Range } else { Assignor::Uniform }), Some(RebalanceProtocol::Cooperative));
    }
    classic(&property("partition.assignment.strategy").unwrap_or_else(|| "cooperative-sticky".to_owned()))
}

/// Whether each worker that joins a connector's group stops all others, or moves nearly all partitions: then those that were asked for
/// together should join together.
pub fn each_arrival_stops_all(fleet: &BTreeMap<String, KafkaValue>, own: &BTreeMap<String, KafkaValue>) -> bool {
    let (assignor, protocol) = assignment(fleet, own);
    assignor == Some(Assignor::Range) || protocol == Some(RebalanceProtocol::Eager)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn properties(text: &str) -> BTreeMap<String, KafkaValue> {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn properties_say_how_partitions_are_given_away() {
        let of = |fleet: &str, own: &str| assignment(&properties(fleet), &properties(own));
        let cooperative = Some(RebalanceProtocol::Cooperative);
        assert_eq!(of("", ""), (Some(Assignor::CooperativeSticky), cooperative));
        let range = "\"partition.assignment.strategy\" = \"range,roundrobin\"";
        assert_eq!(of(range, ""), (Some(Assignor::Range), Some(RebalanceProtocol::Eager)));
        assert_eq!(of("", "\"group.protocol\" = \"consumer\""), (Some(Assignor::Uniform), cooperative));
        let server_side = "\"group.protocol\" = \"consumer\"\n\"group.remote.assignor\" = \"range\"";
        assert_eq!(of(range, server_side), (Some(Assignor::Range), cooperative), "the connector's own win");
    }

    #[test]
    fn workers_join_together_where_each_arrival_stops_all() {
        let stops = |own: &str| each_arrival_stops_all(&properties(""), &properties(own));
        for own in ["", "\"partition.assignment.strategy\" = \"cooperative-sticky\"", "\"group.protocol\" = \"consumer\""] {
            assert!(!stops(own), "{own}");
        }
        let remote_range = "\"group.protocol\" = \"consumer\"\n\"group.remote.assignor\" = \"range\"";
        for own in ["\"partition.assignment.strategy\" = \"range\"", "\"partition.assignment.strategy\" = \"roundrobin\"", remote_range] {
            assert!(stops(own), "{own}");
        }
        let fleet = properties("\"partition.assignment.strategy\" = \"range\"");
        assert!(each_arrival_stops_all(&fleet, &properties("")));
    }
}
