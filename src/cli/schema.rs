//! `millrace schema`: the JSON Schema of the two files, for editors and for checks before a deployment.

use clap::Args;

use super::Exit;
use crate::config;

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
}

/// Prints the schema asked for on stdout.
pub fn schema(args: &SchemaArgs) -> Exit {
    let schema = if args.connector { config::connector_schema() } else { config::fleet_schema() };
    match serde_json::to_string_pretty(&schema) {
        Ok(text) => {
            println!("{text}");
            Exit::Fine
        }
        Err(error) => {
            eprintln!("millrace: {error}");
            Exit::Failed
        }
    }
}
