//! `millrace check`, exactly-once connectors: partitions against the quotas of write streams. Pure.

/// CreateWriteStream calls an hour and project (BigQuery's documentation, "Quotas and limits", Storage Write API).
const STREAMS_PER_HOUR: u64 = 10_000;
/// Concurrent connections of a project: in the multi-regions US and EU, and elsewhere (the same page).
const CONNECTIONS: (u64, u64) = (20_000, 5_000);
/// The share of a quota that a fleet may need: a restart of all workers and a rebalance in the same hour make two streams for each partition, and others use
/// the project too.
const SHARE: u64 = 4;

/// Each partition writes to one stream: whether so many are well within the quotas. `location`: where the tables are, if that is known.
///
/// # Errors
/// Which quota they come near, in words.
pub(super) fn against_quotas(partitions: u64, location: Option<&str>) -> Result<String, String> {
    let multi_region = location.is_some_and(|location| ["us", "eu"].contains(&location.to_ascii_lowercase().as_str()));
    let connections = if multi_region { CONNECTIONS.0 } else { CONNECTIONS.1 };
    let needs = format!("{partitions} partitions make {partitions} streams at each start, and as many connections");
    let quotas = format!("quotas: {STREAMS_PER_HOUR} new streams an hour and project, {connections} connections");
    if partitions * SHARE > STREAMS_PER_HOUR || partitions > connections / 2 {
        return Err(format!(
            "{needs}; too near to the {quotas}: `at-least-once` for connectors that can take it, fewer partitions, or a higher quota"
        ));
    }
    Ok(format!("{needs} ({quotas})"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_held_against_both_quotas() {
        assert!(against_quotas(500, None).unwrap().contains("10000 new streams"));
        assert!(against_quotas(2_500, None).unwrap().contains("5000 connections"));
        assert!(against_quotas(2_501, Some("US")).unwrap_err().contains("too near"));
        assert!(against_quotas(2_400, Some("EU")).unwrap().contains("20000 connections"));
        assert!(against_quotas(20_000, None).is_err());
    }
}
