//! `millrace dead-letters show`.

use clap::Args;
use serde_json::json;

use super::{TIMEOUT, Whose};
use crate::cli::Exit;
use crate::cli::connectors::{Failed, failed};
use crate::cli::offsets::find;
use crate::cli::stdout::say;
use crate::kafka::{GroupSettings, TopicScan};
use crate::pipeline::ReadLetter;

/// Bytes of a value in a line of the hex dump.
const HEX_LINE: usize = 32;

/// Which letter.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    whose: Whose,
    /// Its place in the dead-letter topic as `list` names it, `partition:offset`.
    #[arg(value_parser = place)]
    at: (i32, i64),
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn place(text: &str) -> Result<(i32, i64), String> {
    let parsed = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is no place in the dead-letter topic such as `0:42`"))
}

pub(super) fn show(args: &ShowArgs) -> Result<Exit, Failed> {
    let loaded = args.whose.config.load_usable().map_err(Failed::Said)?;
    let connector = find(&loaded, &args.whose.connector)?;
    let topic = connector.dead_letter_topic();
    let mut scan = TopicScan::open(&GroupSettings::of(&loaded.fleet, connector, 0), &topic, TIMEOUT).map_err(failed)?;
    while let Some(record) = scan.next_record().map_err(failed)? {
        if (record.partition, record.offset) != args.at {
            continue;
        }
        let letter = ReadLetter::read(record).map_err(|why| Failed::Broken(format!("{topic}[{}] {}: {why}", args.at.0, args.at.1)))?;
        if args.json {
            say!("{}", serde_json::to_string_pretty(&as_json(&letter)).map_err(failed)?);
        } else {
            say!("{}", text(&letter));
        }
        return Ok(Exit::Fine);
    }
    Err(Failed::Broken(format!(
        "{topic}[{}] has no letter at offset {}: `millrace dead-letters list {}` names one of each cause",
        args.at.0, args.at.1, connector.name
    )))
}

/// Text where it is text, hex otherwise.
fn bytes_json(bytes: Option<&[u8]>) -> serde_json::Value {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => serde_json::Value::Null,
        Some((Ok(text), _)) => json!({ "text": text }),
        Some((Err(_), bytes)) => json!({ "hex": hex::encode(bytes) }),
    }
}

fn as_json(letter: &ReadLetter) -> serde_json::Value {
    let record = &letter.record;
    let headers: Vec<serde_json::Value> =
        record.headers.iter().map(|(name, value)| json!({ "name": name, "value": bytes_json(value.as_deref()) })).collect();
    json!({
        "at": format!("{}:{}", letter.partition, letter.offset), "connector": letter.connector, "cause": letter.cause, "stage": letter.stage,
        "message": letter.message, "when": letter.when, "replays": letter.replays, "cannot_be_replayed": letter.unfit,
        "record": {
            "topic": &*record.topic, "partition": record.partition, "offset": record.offset, "timestamp_ms": record.timestamp_ms,
            "headers": headers, "key": bytes_json(record.key.as_deref()), "value": bytes_json(record.value.as_deref()),
        },
    })
}

fn text(letter: &ReadLetter) -> String {
    let record = &letter.record;
    let mut lines = vec![
        format!("letter       {}:{} of connector {}, replayed {} times", letter.partition, letter.offset, letter.connector, letter.replays),
        format!("record       {}[{}] offset {}", record.topic, record.partition, record.offset),
        format!("cause        {} at {}: {}", letter.cause, letter.stage, letter.message),
        format!("written      {}", letter.when.as_deref().unwrap_or("–")),
    ];
    let moment = |ms: i64| chrono::DateTime::from_timestamp_millis(ms).map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    lines.extend(record.timestamp_ms.and_then(moment).map(|at| format!("timestamp    {at}")));
    lines.extend(letter.unfit.iter().map(|why| format!("no replay    {why}")));
    lines.extend(record.headers.iter().map(|(name, value)| format!("header       {name}: {}", one_line(value.as_deref()))));
    lines.push(format!("key          {}", one_line(record.key.as_deref())));
    match record.value.as_deref() {
        None => lines.push("value        none (a tombstone)".to_owned()),
        Some(value) if printable(value) => {
            lines.push(format!("value        {} bytes of text:\n{}", value.len(), String::from_utf8_lossy(value)))
        }
        Some(value) => {
            lines.push(format!("value        {} bytes:", value.len()));
            lines.extend(value.chunks(HEX_LINE).enumerate().map(|(i, line)| format!("  {:06x}  {}", i * HEX_LINE, hex::encode(line))));
        }
    }
    lines.join("\n")
}

/// Text that a terminal shows and does not obey.
fn printable(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')))
}

fn one_line(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "none".to_owned(),
        Some(bytes) if printable(bytes) && !bytes.contains(&b'\n') => String::from_utf8_lossy(bytes).into_owned(),
        Some(bytes) => format!("0x{}", hex::encode(bytes)),
    }
}
