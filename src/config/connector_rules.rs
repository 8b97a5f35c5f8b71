//! Combinations in a connector's file that cannot work.

use regex::Regex;

use super::connector::{BadRecords, ConnectorConfig, Tombstones, ValueFormat};
use super::fleet::FleetConfig;
use super::fleet_rules::check_kafka;
use super::rules::{Complaints, TOPIC_RULE, at, is_topic};
use super::table_rules::check_table;
use super::values::{ByteSize, HumanDuration};

/// The least and the most that `batch_bytes` may be: 64 KiB; 9 MiB, for the service takes 10,485,760 bytes a request.
const BATCH_BYTES: (ByteSize, ByteSize) = (ByteSize(64 * 1024), ByteSize::mib(9));

/// Complains about everything that the types cannot say. `fleet` is `None` when `millrace.toml` could not be read at all.
pub(super) fn check_connector(connector: &ConnectorConfig, fleet: Option<&FleetConfig>, complaints: &mut Complaints<'_>) {
    check_topics(connector, complaints);
    check_kafka(&connector.kafka, complaints);
    if connector.group.as_ref().is_some_and(String::is_empty) {
        complaints.add(&at("group"), "is empty: expected a consumer group's name");
    }
    check_value(connector, fleet, complaints);
    check_table(connector, complaints);
    check_delivery(connector, complaints);
    check_errors(connector, complaints);
}

fn check_topics(connector: &ConnectorConfig, complaints: &mut Complaints<'_>) {
    let (list, regex) = (at("topics"), at("topics_regex"));
    match (&connector.topics_regex, connector.topics.is_empty()) {
        (None, true) => complaints.add_unless(&list, &[&regex], "missing: expected `topics` or `topics_regex`"),
        (Some(_), false) => complaints.add_unless(&regex, &[&list], "cannot be combined with `topics`: one of the two"),
        _ => {}
    }
    for (i, topic) in connector.topics.iter().enumerate() {
        let place = list.clone().index(i);
        if !is_topic(topic) {
            let shown = complaints.show(&place, topic);
            complaints.add(&place, format!("{shown}: {TOPIC_RULE}"));
        } else if connector.topics[..i].contains(topic) {
            let shown = complaints.show(&place, topic);
            complaints.add(&place, format!("{shown} is there twice"));
        }
    }
    if let Some(Err(error)) = topics_regex(connector) {
        // regex's Display quotes the pattern; its last line says what is wrong.
        let shown = complaints.show(&regex, connector.topics_regex.as_deref().unwrap_or_default());
        let why = error.to_string().lines().last().map(|line| line.trim_start_matches("error: ").to_owned()).unwrap_or_default();
        complaints.add(&regex, format!("{shown} is no regular expression: {why}"));
    }
}

/// The regular expression over whole topic names, where there is one.
pub(super) fn topics_regex(connector: &ConnectorConfig) -> Option<Result<Regex, regex::Error>> {
    connector.topics_regex.as_ref().map(|pattern| Regex::new(&format!("^(?:{pattern})$")))
}

fn check_value(connector: &ConnectorConfig, fleet: Option<&FleetConfig>, complaints: &mut Complaints<'_>) {
    let value = &connector.value;
    let (format, schemas, header, id_header) =
        (at("value.format"), at("value.schemas"), at("value.schema_header"), at("value.schema_id_header"));
    for (place, text) in [(&header, &value.schema_header), (&id_header, &value.schema_id_header)] {
        if text.as_ref().is_some_and(String::is_empty) {
            complaints.add(place, "is empty: expected a header's name");
        }
    }
    if value.format == ValueFormat::Json {
        for (place, given) in
            [(&schemas, value.schemas.is_some()), (&header, value.schema_header.is_some()), (&id_header, value.schema_id_header.is_some())]
        {
            if given {
                complaints.add_unless(place, &[&format], "has no meaning with format = \"json\", which is typed by the table's columns");
            }
        }
        if connector.table.create {
            complaints.add_unless(
                &at("table.create"),
                &[&format],
                "impossible with format = \"json\": there is no schema to create the table from; create the table yourself and leave `create` out",
            );
        }
        return;
    }
    match (&value.schemas, &value.schema_header) {
        (Some(_), None) => {
            complaints.add_unless(&schemas, &[&header], "needs `schema_header`: the header that names a schema of the folder")
        }
        (None, Some(_)) => complaints.add_unless(&header, &[&schemas], "needs `schemas`: the folder whose schemas the header names"),
        _ => {}
    }
    if value.schemas.is_some() && value.schema_id_header.is_some() {
        complaints.add(&id_header, "cannot be combined with `schemas`: ids are the registry's");
    }
    if let Some(folder) = value.schemas.as_ref().filter(|folder| !folder.is_dir()) {
        let shown = complaints.show(&schemas, &folder.display().to_string());
        complaints.add(&schemas, format!("{shown} is no folder that can be found"));
    }
    if value.schemas.is_none() && fleet.is_some_and(|fleet| fleet.registry.is_none()) {
        complaints.add_unless(
            &format,
            &[&schemas, &header],
            "needs schemas: from a registry ([registry] in the fleet's file) or from a folder (`schemas` and `schema_header` here)",
        );
    }
}

fn check_delivery(connector: &ConnectorConfig, complaints: &mut Complaints<'_>) {
    let delivery = &connector.delivery;
    complaints.within(&at("delivery.linger"), delivery.linger, HumanDuration::from_millis(1), HumanDuration::from_secs(60));
    complaints.within(&at("delivery.batch_bytes"), delivery.batch_bytes, BATCH_BYTES.0, BATCH_BYTES.1);
    complaints.within(&at("delivery.batch_rows"), delivery.batch_rows, 1, 1_000_000);
}

fn check_errors(connector: &ConnectorConfig, complaints: &mut Complaints<'_>) {
    let errors = &connector.errors;
    complaints.within(&at("errors.max_dead_share"), errors.max_dead_share, 0.0, 1.0);
    if connector.tombstones == Tombstones::DeadLetter && errors.bad_records != BadRecords::DeadLetter {
        complaints.add_unless(
            &at("tombstones"),
            &[&at("errors.bad_records")],
            "`dead-letter` needs [errors] bad_records = \"dead-letter\": there is no dead-letter topic else",
        );
    }
    if errors.bad_records != BadRecords::DeadLetter {
        return;
    }
    let place = at("errors.dead_letter_topic");
    let topic = connector.dead_letter_topic();
    let shown = complaints.show(&place, &topic);
    if !is_topic(&topic) {
        complaints.add(&place, format!("{shown}: {TOPIC_RULE}"));
    } else if connector.topics.contains(&topic) {
        complaints.add(&place, format!("{shown} is also a topic of this connector: its dead letters would come back for ever"));
    } else if topics_regex(connector).and_then(Result::ok).is_some_and(|regex| regex.is_match(&topic)) {
        let given = connector.errors.dead_letter_topic.is_some();
        let place = if given { place } else { at("topics_regex") };
        let message =
            format!("the dead-letter topic {shown} matches `topics_regex`, so dead letters would come back for ever: choose another");
        complaints.add_unless(&place, &[&at("errors.dead_letter_topic")], message);
    }
}
