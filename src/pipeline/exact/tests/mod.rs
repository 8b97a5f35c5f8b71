//! Owners of a partition, old and new, paused and dead, against a played Kafka and a played BigQuery. Every step of theirs is one at which
//! an owner can stop. The judge knows nothing of intents: it counts the rows in the table.

mod crashes;
mod handovers;
mod lost;
mod owner;
mod world;

/// What the records of a test are: most become rows; some are nothing, no JSON, or rows that BigQuery rejects.
fn value(n: usize) -> Option<Vec<u8>> {
    match n % 13 {
        5 => None,
        7 => Some(b"{ not json".to_vec()),
        11 => Some(format!("{{\"n\": {n}, \"s\": \"reject {n}.\"}}").into_bytes()),
        _ => Some(format!("{{\"n\": {n}, \"s\": \"fine {n}.\"}}").into_bytes()),
    }
}

/// Records that every one becomes a row.
fn fine(n: usize) -> Option<Vec<u8>> {
    Some(format!("{{\"n\": {n}, \"s\": \"fine {n}.\"}}").into_bytes())
}
