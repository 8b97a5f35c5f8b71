//! `millrace dead-letters`: what lies in a connector's dead-letter topic, one letter of it, and replaying them. Reads without a group, while the fleet runs.

mod index;
mod list;
mod replay;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Exit;
use super::connectors::Failed;
use super::examples;
use super::run::ConfigArgs;

/// The longest that Kafka may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What is done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Count them by cause, with an example of each.
    #[command(after_help = examples::DEAD_LETTERS_LIST)]
    List(list::ListArgs),
    /// Show one: its record, why it died, headers, key and value.
    #[command(after_help = examples::DEAD_LETTERS_SHOW)]
    Show(show::ShowArgs),
    /// Send their records through the connector's present rules once more. Each letter once, unless told otherwise.
    #[command(after_help = examples::DEAD_LETTERS_REPLAY)]
    Replay(replay::ReplayArgs),
}

/// Whose dead letters.
#[derive(Debug, Args)]
pub struct Whose {
    #[command(flatten)]
    config: ConfigArgs,
    /// The connector: its file's name without `.toml`.
    connector: String,
}

/// Runs the command.
pub fn dead_letters(command: &DeadLettersCommand) -> Exit {
    let done = match command {
        DeadLettersCommand::List(args) => list::list(args),
        DeadLettersCommand::Show(args) => show::show(args),
        DeadLettersCommand::Replay(args) => replay::replay(args),
    };
    done.unwrap_or_else(Failed::say)
}
