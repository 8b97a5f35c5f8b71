//! Names of tables and streams in the Storage Write API.

use chrono::Datelike;

use super::status::WriteError;
use crate::embedded::bigquery::schema::table_rules::{Granularity, Partitioning};
use crate::embedded::bigquery::state::TableKey;
use crate::embedded::bigquery::values::civil;

/// A stream's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamName {
    pub key: TableKey,
    /// `$` and what follows it in the table's part.
    pub decorator: Option<String>,
    pub is_default: bool,
}

/// `projects/P/datasets/D/tables/T`.
pub(crate) fn table(name: &str) -> Result<(TableKey, Option<String>), WriteError> {
    let parts: Vec<&str> = name.split('/').collect();
    let ["projects", project, "datasets", dataset, "tables", table] = parts[..] else {
        return Err(WriteError::invalid(name, "Invalid table name: it must be projects/{project}/datasets/{dataset}/tables/{table}."));
    };
    if project.is_empty() || dataset.is_empty() || table.is_empty() {
        return Err(WriteError::invalid(name, "Invalid table name: an empty part."));
    }
    let (table, decorator) = match table.split_once('$') {
        Some((table, decorator)) => (table, Some(decorator.to_owned())),
        None => (table, None),
    };
    Ok((TableKey::new(project, dataset, table), decorator))
}

/// `projects/P/datasets/D/tables/T/streams/S`, or `.../_default`.
pub(crate) fn stream(name: &str) -> Result<StreamName, WriteError> {
    let refused = || {
        WriteError::invalid(name, "Invalid stream name: it must be projects/{project}/datasets/{dataset}/tables/{table}/streams/{stream}.")
    };
    let (rest, last) = name.rsplit_once('/').ok_or_else(refused)?;
    let parent = match rest.strip_suffix("/streams") {
        Some(parent) if !last.is_empty() => parent,
        None if last == "_default" => rest,
        _ => return Err(refused()),
    };
    let (key, decorator) = table(parent)?;
    Ok(StreamName { key, decorator, is_default: last == "_default" })
}

/// A decorator is a day of a table partitioned by day, 31 days back to 16 ahead.
pub(crate) fn check_decorator(decorator: &str, partitioning: &Partitioning, entity: &str) -> Result<(), WriteError> {
    if !matches!(partitioning, Partitioning::IngestionTime(Granularity::Day) | Partitioning::TimeColumn(_, Granularity::Day)) {
        return Err(WriteError::invalid(entity, "Streaming to a partition is supported for tables partitioned by day only."));
    }
    let part = |range: std::ops::Range<usize>| decorator.get(range)?.parse::<i64>().ok();
    let day = match (decorator.len(), part(0..4), part(4..6), part(6..8)) {
        (8, Some(y), Some(m), Some(d)) => civil::days_of(y, m, d),
        _ => None,
    };
    let day = day.ok_or_else(|| WriteError::invalid(entity, format_args!("Invalid date partition {decorator}.")))?;
    let today = today();
    if (today - 31..=today + 16).contains(&day) {
        return Ok(());
    }
    Err(WriteError::invalid(
        entity,
        format_args!(
            "The destination table's partition ${decorator} is outside the allowed bounds. You can only stream to partitions within 31 days in the past and \
             16 days in the future relative to the current date."
        ),
    ))
}

/// Days since the epoch.
pub(crate) fn today() -> i64 {
    i64::from(chrono::Utc::now().date_naive().num_days_from_ce()) - 719_163
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let default = stream("projects/p/datasets/d/tables/t$20240102/streams/_default").unwrap();
        assert_eq!(
            (default.key.to_string(), default.decorator.as_deref(), default.is_default),
            ("p:d.t".to_owned(), Some("20240102"), true)
        );
        assert!(stream("projects/p/datasets/d/tables/t/_default").unwrap().is_default);
        assert!(!stream("projects/p/datasets/d/tables/t/streams/s1").unwrap().is_default);
        for bad in [
            "",
            "projects/p/datasets/d/tables/t",
            "projects/p/datasets/d/tables/t/streams/",
            "projects//datasets/d/tables/t/streams/s",
            "a/b",
        ] {
            assert!(stream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn decorators_by_rule() {
        let day = Partitioning::IngestionTime(Granularity::Day);
        let of = |days: i64| civil::format_date(today() + days).replace('-', "");
        for (offset, expected) in [(-31, true), (-32, false), (16, true), (17, false)] {
            assert_eq!(check_decorator(&of(offset), &day, "e").is_ok(), expected, "{offset}");
        }
        assert!(check_decorator(&of(0), &Partitioning::IngestionTime(Granularity::Hour), "e").is_err());
        assert!(check_decorator(&of(0), &Partitioning::None, "e").is_err());
        assert!(check_decorator("2024", &day, "e").is_err());
    }
}
