//! Combinations in `[table]` that cannot work.

use super::connector::{ColumnOverride, ConnectorConfig, MetadataField, TableConfig};
use super::rules::{Complaints, Place, at};

/// The types that a column may be stated as, by BigQuery's names (`NUMERIC`, `BIGNUMERIC`, `STRING`, `BYTES` also with parameters).
const TYPES: &[&str] = &[
    "BOOL",
    "BOOLEAN",
    "INT64",
    "INTEGER",
    "FLOAT64",
    "FLOAT",
    "NUMERIC",
    "BIGNUMERIC",
    "STRING",
    "BYTES",
    "DATE",
    "TIME",
    "DATETIME",
    "TIMESTAMP",
    "JSON",
    "GEOGRAPHY",
    "INTERVAL",
];

/// The types that `unit` gives a meaning to.
const TIMES: &[&str] = &["DATE", "TIME", "DATETIME", "TIMESTAMP"];

/// Complains about everything in `[table]` that the types cannot say.
pub(super) fn check_table(connector: &ConnectorConfig, complaints: &mut Complaints<'_>) {
    let table = &connector.table;
    check_names(connector, complaints);
    for (key, given) in [("partition", table.partition.is_some()), ("cluster", !table.cluster.is_empty())] {
        if given && !table.create {
            complaints.add_unless(
                &at("table").key(key),
                &[&at("table.create")],
                "counts for created tables only: set create = true, or leave it out",
            );
        }
    }
    if table.cluster.len() > 4 {
        complaints.add(&at("table.cluster"), format!("{} columns: BigQuery clusters by four at most", table.cluster.len()));
    }
    for (i, column) in table.cluster.iter().enumerate() {
        if table.cluster[..i].iter().any(|other| other.eq_ignore_ascii_case(column)) {
            let place = at("table.cluster").index(i);
            let shown = complaints.show(&place, column);
            complaints.add(&place, format!("{shown} is there twice"));
        }
    }
    if let Some(partition) = &table.partition {
        if partition.expire.is_some_and(|expire| expire.get().is_zero()) {
            complaints.add(&at("table.partition.expire"), "is 0: every partition would expire at once");
        }
        if partition.by.as_ref().is_some_and(String::is_empty) {
            complaints.add(&at("table.partition.by"), "is empty: expected a column, or leave it out for the time of arrival");
        }
    }
    check_metadata(table, complaints);
    for (field, column) in &table.columns {
        check_column(&at("table.columns").key(field), column, complaints);
    }
}

fn check_names(connector: &ConnectorConfig, complaints: &mut Complaints<'_>) {
    let table = &connector.table;
    let (name, by_topic) = (at("table.name"), at("table.by_topic"));
    if table.name.is_none() && table.by_topic.is_empty() {
        complaints.add_unless(&name, &[&by_topic], "missing: expected `name = \"dataset.table\"` or [table.by_topic]");
    }
    if let Some(text) = &table.name {
        check_name(&name, text, true, complaints);
    }
    for (topic, text) in &table.by_topic {
        check_name(&by_topic.clone().key(topic), text, false, complaints);
    }
    if table.by_topic.is_empty() {
        return;
    }
    if connector.topics_regex.is_some() {
        if table.name.is_none() {
            let message = "does not cover new topics of `topics_regex`: set `name` too, for those that are not listed here";
            complaints.add_unless(&by_topic, &[&name], message);
        }
        return;
    }
    let unlisted = |topic: &&String| table.name.is_none() && !table.by_topic.contains_key(*topic);
    for (i, topic) in connector.topics.iter().enumerate().filter(|(_, topic)| unlisted(topic)) {
        let place = at("topics").index(i);
        let shown = complaints.show(&place, topic);
        complaints.add_unless(&place, &[&by_topic, &name], format!("{shown} has no table: add it to [table.by_topic], or set `name`"));
    }
    for topic in table.by_topic.keys().filter(|topic| !connector.topics.contains(topic)) {
        complaints.add_unless(&by_topic.clone().key(topic), &[&at("topics")], "is no topic of this connector: see `topics`");
    }
}

/// `[project.]dataset.table`; `${topic}` in the table's part, where it is allowed.
fn check_name(place: &Place, text: &str, topic_allowed: bool, complaints: &mut Complaints<'_>) {
    let shown = complaints.show(place, text);
    let parts: Vec<&str> = text.split('.').collect();
    let (project, dataset, table) = match parts.as_slice() {
        [dataset, table] => (None, *dataset, *table),
        [project, dataset, table] => (Some(*project), *dataset, *table),
        _ => {
            complaints.add(place, format!("{shown} is no table: expected `dataset.table` or `project.dataset.table`"));
            return;
        }
    };
    let plain = table.replace("${topic}", "t");
    if plain.contains("${") {
        complaints.add(place, format!("{shown}: only `${{topic}}` can stand in a table's name"));
        return;
    }
    if plain != table && !topic_allowed {
        complaints.add(place, format!("{shown}: `${{topic}}` has no meaning here, the table is of one topic"));
    }
    if project.is_some_and(|p| p.contains("${")) || dataset.contains("${") {
        complaints.add(place, format!("{shown}: `${{topic}}` can stand in the table's part only"));
        return;
    }
    if project.is_some_and(|p| p.is_empty() || !p.chars().all(|c| c.is_ascii_alphanumeric() || "-_:".contains(c))) {
        complaints.add(place, format!("{shown}: the project's id may hold letters, digits and hyphens"));
    }
    if !(1..=1024).contains(&dataset.len()) || !dataset.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        complaints.add(place, format!("{shown}: a dataset's name is 1 to 1,024 letters, digits and underscores"));
    }
    // BigQuery: Unicode letters, marks, numbers, connectors, dashes and spaces; 1,024 bytes.
    if !(1..=1024).contains(&plain.len()) || plain.chars().any(|c| c.is_control() || "!\"$%&'()*+,/:;<=>?@[\\]^`{|}~#".contains(c)) {
        complaints.add(place, format!("{shown}: a table's name is 1 to 1,024 letters, digits, underscores, hyphens and spaces"));
    }
}

fn check_metadata(table: &TableConfig, complaints: &mut Complaints<'_>) {
    let column = |field: MetadataField| table.metadata_names.get(&field).map_or(field.default_name(), String::as_str);
    for (i, field) in table.metadata.iter().enumerate() {
        let place = at("table.metadata").index(i);
        if table.metadata[..i].contains(field) {
            complaints.add(&place, "is there twice");
        } else if let Some(other) = table.metadata[..i].iter().find(|other| column(**other).eq_ignore_ascii_case(column(*field))) {
            complaints.add(&place, format!("its column `{}` is also that of `{}`", column(*field), key_of(*other)));
        } else if table.columns.iter().any(|(field_name, o)| {
            !field_name.contains('.') && o.name.as_deref().unwrap_or(field_name).eq_ignore_ascii_case(column(*field))
        }) {
            complaints
                .add(&place, format!("its column `{}` is also one of [table.columns]: rename it in `metadata_names`", column(*field)));
        }
    }
    for (field, name) in &table.metadata_names {
        let place = at("table.metadata_names").key(key_of(*field));
        if !table.metadata.contains(field) {
            complaints.add_unless(&place, &[&at("table.metadata")], "names a column that `metadata` does not ask for");
        }
        check_column_name(&place, name, complaints);
    }
}

/// The field as the file writes it.
fn key_of(field: MetadataField) -> &'static str {
    match field {
        MetadataField::Topic => "topic",
        MetadataField::Partition => "partition",
        MetadataField::Offset => "offset",
        MetadataField::Timestamp => "timestamp",
        MetadataField::Key => "key",
        MetadataField::Headers => "headers",
        MetadataField::SchemaId => "schema_id",
        MetadataField::IngestedAt => "ingested_at",
    }
}

fn check_column(place: &Place, column: &ColumnOverride, complaints: &mut Complaints<'_>) {
    let ty = column.ty.as_deref().map(|ty| ty.split('(').next().unwrap_or(ty).trim().to_ascii_uppercase());
    if let (Some(base), Some(given)) = (&ty, &column.ty) {
        let type_place = place.clone().key("type");
        let shown = complaints.show(&type_place, given);
        let parameters = given.split_once('(').map(|(_, rest)| rest.trim_end());
        if !TYPES.contains(&base.as_str()) {
            complaints.add(&type_place, format!("{shown} is no type for a column: expected one of {}", TYPES.join(", ")));
        } else if let Some(rest) = parameters {
            let numbers = rest.strip_suffix(')').map(|n| n.split(',').map(|n| n.trim().parse::<u32>()).collect::<Result<Vec<_>, _>>());
            let most = if matches!(base.as_str(), "NUMERIC" | "BIGNUMERIC") { 2 } else { 1 };
            let takes_any = matches!(base.as_str(), "NUMERIC" | "BIGNUMERIC" | "STRING" | "BYTES");
            if !takes_any || !matches!(&numbers, Some(Ok(n)) if (1..=most).contains(&n.len())) {
                complaints
                    .add(&type_place, format!("{shown}: expected such as NUMERIC(20, 4), STRING(10); other types take no parameters"));
            }
        }
    }
    if column.unit.is_some() && !ty.as_deref().is_some_and(|ty| TIMES.contains(&ty)) {
        complaints.add_unless(
            &place.clone().key("unit"),
            &[&place.clone().key("type")],
            "needs a type that is a time: DATE, TIME, DATETIME or TIMESTAMP",
        );
    }
    if let Some(mode) = &column.mode
        && !["NULLABLE", "REQUIRED", "REPEATED"].contains(&mode.to_ascii_uppercase().as_str())
    {
        let mode_place = place.clone().key("mode");
        let shown = complaints.show(&mode_place, mode);
        complaints.add(&mode_place, format!("{shown} is no mode: expected NULLABLE, REQUIRED or REPEATED"));
    }
    if let Some(name) = &column.name {
        check_column_name(&place.clone().key("name"), name, complaints);
    }
    if column.ty.is_none() && column.unit.is_none() && column.mode.is_none() && column.name.is_none() {
        complaints.add(place, "says nothing: expected `type`, `unit`, `mode` or `name`");
    }
}

/// BigQuery's rule for column names (without the flexible ones): a letter or underscore, then letters, digits, underscores; 300 characters.
fn check_column_name(place: &Place, name: &str, complaints: &mut Complaints<'_>) {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || name.len() > 300 || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let shown = complaints.show(place, name);
        complaints.add(place, format!("{shown} is no column's name: expected letters, digits, underscores, at most 300, no digit first"));
    }
}
