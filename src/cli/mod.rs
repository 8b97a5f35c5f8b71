//! A file per command. The only user of `embedded/`.
//!
//! Belongs here: arguments, what a command prints, exit codes. Does not belong here: what a command does, when another room could do it.

mod arguments;
mod authorities;
mod check;
mod check_schemas;
mod check_streams;
mod check_table;
mod connectors;
mod datagen;
mod dead_letters;
mod decide;
mod demo;
mod embedded;
mod examples;
mod keys;
mod offsets;
mod parent;
mod run;
mod schema;
mod simulate;
mod status;
mod status_table;
mod stdout;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
pub use decide::answer_all;
use parent::EXIT_WITH_PARENT;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: as asked.
    Fine,
    /// 1: it failed, or a check or a reconciliation found something.
    Failed,
    /// 2: wrong arguments or wrong configuration.
    Usage,
    /// 3: a demo that proves nothing, because a fault that it should have met never came.
    Inconclusive,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Fine => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::Inconclusive => Self::from(3),
        }
    }
}

/// Moves Kafka records into BigQuery: decoded in batches, durable, then committed.
///
/// Exit codes: 0 fine; 1 failed; 2 wrong arguments or configuration; 3 an inconclusive demo; 70 a thread was wedged: start it again.
/// Levels of log lines: MILLRACE_LOG, such as `info,millrace::kafka=debug`.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, propagate_version = true, after_help = examples::PROGRAM)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a worker until SIGTERM or SIGINT.
    #[command(after_help = examples::RUN)]
    Run(run::ConfigArgs),
    /// Try files, connections and permissions without starting anything, and say what came out.
    #[command(after_help = examples::CHECK)]
    Check(check::CheckArgs),
    /// Run the main job with everything embedded, on this machine alone, and prove that nothing is lost.
    #[command(after_help = examples::DEMO)]
    Demo(demo::DemoArgs),
    /// Serve the embedded broker, registry and BigQuery alone.
    #[command(after_help = examples::EMBEDDED)]
    Embedded(embedded::EmbeddedArgs),
    /// Produce stock updates to any broker, at a rate that can be changed while it runs.
    #[command(after_help = examples::DATAGEN)]
    Datagen(datagen::DatagenArgs),
    /// Decide how many workers a fleet needs: a snapshot (JSON) a line on stdin, a decision (JSON) a line on stdout.
    #[command(after_help = examples::DECIDE)]
    Decide(decide::DecideArgs),
    /// Compare scaling policies on simulated fleets: ours, KEDA with HPA, Flink's rule, one worker per partition, a clairvoyant.
    #[command(after_help = examples::SIMULATE)]
    Simulate(simulate::SimulateArgs),
    /// Show the fleet: workers, connectors, lag, what is decided and why. Any worker answers for all.
    #[command(after_help = examples::STATUS)]
    Status(status::StatusArgs),
    /// Pause, resume, restart or stop connectors on every worker, and list what they do.
    #[command(subcommand)]
    Connectors(connectors::ConnectorsCommand),
    /// Show a connector's offsets, or set them while it is stopped.
    #[command(subcommand)]
    Offsets(offsets::OffsetsCommand),
    /// List, show and replay dead letters, while the fleet runs.
    #[command(subcommand, name = "dead-letters")]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Print the JSON Schema of millrace.toml, of a connector's file, or of what `decide` reads and writes.
    #[command(after_help = examples::SCHEMA)]
    Schema(schema::SchemaArgs),
}

/// Reads the arguments and runs the command they name. Wrong arguments end the process with exit code 2.
pub fn main() -> Exit {
    parent::exit_with_parent();
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Demo(args) => demo::demo(args),
        Command::Embedded(args) => embedded::embedded(&args),
        Command::Datagen(args) => datagen::datagen(args),
        Command::Decide(args) => decide::decide(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Status(args) => status::status(&args),
        Command::Connectors(command) => connectors::connectors(&command),
        Command::Offsets(command) => offsets::offsets(&command),
        Command::DeadLetters(command) => dead_letters::dead_letters(&command),
        Command::Schema(args) => schema::schema(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
