//! `millrace dead-letters list`.

use clap::Args;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde_json::json;

use super::Whose;
use super::index::{self, Filter, Index};
use crate::cli::Exit;
use crate::cli::connectors::{Failed, failed};
use crate::cli::offsets::find;
use crate::cli::stdout::say;
use crate::fleet::StateTopic;
use crate::kafka::ClusterSettings;

/// What is counted.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    filter: Filter,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn list(args: &ListArgs) -> Result<Exit, Failed> {
    let loaded = args.whose.config.load_usable().map_err(Failed::Said)?;
    let connector = find(&loaded, &args.whose.connector)?;
    let state = StateTopic::open(&ClusterSettings::of_fleet(&loaded.fleet), &loaded.fleet.scaling).map_err(failed)?;
    let topic = connector.dead_letter_topic();
    let index = index::read(&loaded.fleet, connector, &args.filter, index::replayed_of(&state, &topic)?)?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&as_json(&topic, &index)).map_err(failed)?);
    } else {
        say!("{}", table(&topic, &index));
    }
    Ok(Exit::Fine)
}

fn as_json(topic: &str, index: &Index) -> serde_json::Value {
    let causes: Vec<serde_json::Value> = index
        .by_cause
        .iter()
        .map(|(cause, of)| {
            let example = of.example.as_ref().map(|letter| {
                json!({
                    "at": format!("{}:{}", letter.partition, letter.offset), "topic": &*letter.record.topic, "partition": letter.record.partition,
                    "offset": letter.record.offset, "stage": letter.stage, "message": letter.message, "when": letter.when, "replays": letter.replays,
                })
            });
            json!({ "cause": cause, "letters": of.letters, "replayed": of.replayed, "example": example })
        })
        .collect();
    json!({
        "dead_letter_topic": topic, "causes": causes, "of_other_connectors": index.of_others, "not_understood": index.not_understood,
        "remarks": index.remarks,
    })
}

fn table(topic: &str, index: &Index) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["cause", "letters", "replayed", "example", "its record", "why"]);
    for (cause, of) in &index.by_cause {
        let Some(letter) = &of.example else { continue };
        let record = format!("{}[{}] {}", letter.record.topic, letter.record.partition, letter.record.offset);
        let at = format!("{}:{}", letter.partition, letter.offset);
        table.add_row([cause, &of.letters.to_string(), &of.replayed.to_string(), &at, &record, &letter.message]);
    }
    for column in table.column_iter_mut().skip(1).take(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let letters: u64 = index.by_cause.values().map(|of| of.letters).sum();
    let mut lines = vec![format!("{topic}: {letters} letters")];
    if letters > 0 {
        lines.push(table.to_string());
    }
    if index.of_others > 0 {
        lines.push(format!("{} letters of other connectors", index.of_others));
    }
    if index.not_understood > 0 {
        lines.push(format!("{} records that say of no record that they hold it", index.not_understood));
    }
    lines.extend(index.remarks.iter().cloned());
    lines.join("\n")
}
