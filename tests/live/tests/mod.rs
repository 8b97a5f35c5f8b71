//! The tests, each a function from the shared servers to an outcome.

mod brokers;
mod check;
mod columns;
mod dead_letters;
mod embedded;
mod evolution;
mod exactly_once;
mod faults;
mod groups;
mod handover;
mod kubernetes;
mod lag;
mod offsets;
mod registry;
mod schema_folder;
mod security;
mod servers;
mod topics;
mod types;

use crate::harness::Test;

/// All tests, in the order in which they run. `tests/run` runs the last one, which waits for minutes, in a process with servers of its own
/// beside the others.
pub const ALL: &[Test] = &[
    ("servers::start_and_are_as_strict_as_they_should_be", servers::start_and_are_as_strict_as_they_should_be),
    ("types::every_avro_type_reads_back_as_it_was_written", types::every_avro_type_reads_back_as_it_was_written),
    ("embedded::what_the_emulator_cannot_hold", embedded::what_the_emulator_cannot_hold),
    ("evolution::a_new_column_in_mid_stream", evolution::a_new_column_in_mid_stream),
    ("topics::aborted_transactions_never_arrive", topics::aborted_transactions_never_arrive),
    ("topics::a_compacted_topic_with_gaps", topics::a_compacted_topic_with_gaps),
    ("topics::a_batch_of_tombstones_only", topics::a_batch_of_tombstones_only),
    ("topics::retention_overtakes_a_stopped_worker", topics::retention_overtakes_a_stopped_worker),
    ("topics::new_partitions_and_topics_start_at_their_first_record", topics::new_partitions_and_topics_start_at_their_first_record),
    ("schema_folder::schemas_named_by_a_header", schema_folder::schemas_named_by_a_header),
    ("registry::references_are_resolved", registry::references_are_resolved),
    ("registry::schema_ids_in_a_header", registry::schema_ids_in_a_header),
    ("check::schemas_are_held_against_the_table", check::schemas_are_held_against_the_table),
    ("registry::a_registry_that_is_down_holds", registry::a_registry_that_is_down_holds),
    ("dead_letters::bad_records_read_back_with_their_headers", dead_letters::bad_records_read_back_with_their_headers),
    ("offsets::are_set_only_while_nobody_reads", offsets::are_set_only_while_nobody_reads),
    ("security::scram_over_tls_with_a_private_authority", security::scram_over_tls_with_a_private_authority),
    ("security::plain_over_tls_with_a_private_authority", security::plain_over_tls_with_a_private_authority),
    (
        "security::oauthbearer_with_a_token_endpoint_of_a_private_authority",
        security::oauthbearer_with_a_token_endpoint_of_a_private_authority,
    ),
    ("security::mutual_tls_with_a_private_authority", security::mutual_tls_with_a_private_authority),
    ("lag::a_thousand_partitions_in_one_look", lag::a_thousand_partitions_in_one_look),
    ("lag::transactions_open_and_aborted", lag::transactions_open_and_aborted),
    ("lag::retention_and_sizes", lag::retention_and_sizes),
    ("exactly_once::emulator", exactly_once::emulator),
    ("exactly_once::embedded", exactly_once::embedded),
    ("groups::classic", groups::classic),
    ("groups::consumer", groups::consumer),
    ("handover::classic", handover::classic),
    ("handover::consumer", handover::consumer),
    ("brokers::one_is_killed_while_records_flow", brokers::one_is_killed_while_records_flow),
    ("faults::one_fleet_through_all_of_them", faults::one_fleet_through_all_of_them),
    ("kubernetes::the_chart_is_accepted_and_its_role_is_narrow", kubernetes::objects::the_chart_is_accepted_and_its_role_is_narrow),
    ("kubernetes::upgrades_leave_the_replicas_alone", kubernetes::objects::upgrades_leave_the_replicas_alone),
    ("kubernetes::a_pod_leads_with_its_own_credentials", kubernetes::in_cluster::a_pod_leads_with_its_own_credentials),
    ("kubernetes::one_leads_and_stale_writes_are_refused", kubernetes::lease::one_leads_and_stale_writes_are_refused),
    (
        "kubernetes::what_other_operators_read_is_accepted_to_the_last_field",
        kubernetes::manifests::what_other_operators_read_is_accepted_to_the_last_field,
    ),
    ("kubernetes::an_hpa_follows_the_number_that_it_is_told", kubernetes::autoscaler::an_hpa_follows_the_number_that_it_is_told),
    ("kubernetes::pods_that_were_asked_for_together_join_together", kubernetes::joins::pods_that_were_asked_for_together_join_together),
    ("kubernetes::a_fleet_sizes_itself", kubernetes::fleet::a_fleet_sizes_itself),
];

/// Run only where `MILLRACE_LIVE_AUTOSCALER` is set: minutes of their own, for what a fleet and an HPA do is shown apart from each other by
/// others. All but the first need what `kube/autoscalers` builds.
pub const LONG: &[Test] = &[
    ("kubernetes::an_hpa_follows_a_fleet", kubernetes::observed::an_hpa_follows_a_fleet),
    ("kubernetes::prometheus_adapter_follows_a_fleet", kubernetes::observed::prometheus_adapter_follows_a_fleet),
    ("kubernetes::keda_follows_a_fleet", kubernetes::observed::keda_follows_a_fleet),
];
