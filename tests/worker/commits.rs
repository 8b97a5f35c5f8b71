//! A revocation whose commit is refused: what comes again is counted before it does.

use millrace::embedded::bigquery::Settings;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::rig::{Rig, json_connector, metric};

#[test]
fn a_commit_refused_at_a_revocation_counts_the_rows_that_come_again() {
    let mut rig = Rig::new(1, Settings::default());
    // Nothing is committed but at the revocation.
    rig.set("worker", "commit_interval", "10m");
    rig.topic("refused", 2, 1);
    rig.produce_ids("refused", 0, 0..30);
    rig.produce_ids("refused", 1, 30..50);
    let toml = json_connector("\"refused\"", "refused", "refused.dead");
    let duplicates = || metric("millrace_possible_duplicate_rows_total", &[("table", "p.d.refused")]);
    let connector = rig.start("refused", &toml);
    rig.wait_for_ids("refused", 0..50);
    assert_eq!(duplicates(), 0.0);
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    rig.mock.request_errors(RDKafkaApiKey::OffsetCommit, &[denied; 16]);
    connector.stop();
    rig.mock.clear_request_errors(RDKafkaApiKey::OffsetCommit);
    assert_eq!(duplicates(), 50.0, "all of both partitions");
    assert!(metric("millrace_commit_failures_total", &[("connector", "refused")]) >= 1.0);
    // They do come again, and no more than was said.
    let again = rig.start("refused", &toml);
    super::rig::wait_until("every row twice", super::rig::SOON, || rig.ids("refused").values().all(|copies| *copies == 2));
    again.stop();
    assert!(rig.ids("refused").values().all(|copies| *copies == 2));
    assert_eq!(duplicates(), 50.0, "the commit of the second revocation was taken");
    let third = rig.start("refused", &toml);
    rig.produce_ids("refused", 0, 50..51);
    rig.wait_for_ids("refused", 50..51);
    third.stop();
    assert_eq!(rig.ids("refused").values().map(|copies| u64::from(*copies)).sum::<u64>(), 101, "nothing a third time");
}
