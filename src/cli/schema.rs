//! `millrace schema`: the JSON Schema of the two files, for editors and for checks before a deployment, and of what `millrace decide` reads
//! and writes.

use clap::Args;

use super::Exit;
use super::stdout::say;
use crate::config;
use crate::scaling::{Decision, Snapshot};

/// Arguments of `millrace schema`.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SchemaArgs {
    /// The schema of a connector's file.
    #[arg(long)]
    connector: bool,
    /// The schema of millrace.toml.
    #[arg(long)]
    fleet: bool,
    /// The schema of a line that `millrace decide` reads: a snapshot of the fleet.
    #[arg(long)]
    decide: bool,
    /// The schema of a line that `millrace decide` writes: a decision.
    #[arg(long)]
    decision: bool,
}

/// Prints the schema asked for on stdout.
pub fn schema(args: &SchemaArgs) -> Exit {
    let schema = match args {
        SchemaArgs { connector: true, .. } => config::connector_schema(),
        SchemaArgs { decide: true, .. } => schemars::schema_for!(Snapshot),
        SchemaArgs { decision: true, .. } => schemars::schema_for!(Decision),
        _ => config::fleet_schema(),
    };
    match serde_json::to_string_pretty(&schema) {
        Ok(text) => {
            say!("{text}");
            Exit::Fine
        }
        Err(error) => {
            eprintln!("millrace: {error}");
            Exit::Failed
        }
    }
}
