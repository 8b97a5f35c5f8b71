//! `millrace demo`: broker, registry and BigQuery in this process, workers as real processes, and the proof that nothing was lost.

mod committed;
mod dead_letters;
mod faults;
mod finish;
mod fleet;
mod flows;
mod freshness;
mod kills;
mod landing;
mod picture;
mod reconcile;
mod report;
mod run;
mod scrape;
mod stage;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Exit;
use super::arguments;
pub(super) use faults::Profile;

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportForm {
    /// For people.
    Text,
    /// One JSON object, the last line on stdout.
    Json,
}

/// Arguments of `millrace demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long records are produced.
    #[arg(long = "for", value_parser = arguments::duration, default_value = "30s")]
    duration: Duration,
    /// Records a second, of both topics together. Keys `+` and `-` change it.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Worker processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Brokers of the embedded cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    brokers: u16,
    /// The share of records that are bad on purpose, of each kind in turn.
    #[arg(long, value_parser = arguments::share, default_value = "0.1%")]
    bad_records: f64,
    /// Kill a worker (SIGKILL) this often and start it again.
    #[arg(long, value_parser = arguments::duration)]
    kill_every: Option<Duration>,
    /// What goes wrong in broker, registry and BigQuery: fixed rates, printed at the start.
    #[arg(long, value_enum, default_value = "none")]
    faults: Profile,
    /// The same seed gives the same records, faults and victims (not the same timing).
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "text")]
    report: ReportForm,
    /// Keep the folder with configuration and the workers' logs. It is kept anyway when something is wrong.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo. 0: all there; 1: something is missing, wrong, or there too often; 3: a fault with a rate never fired.
pub fn demo(args: DemoArgs) -> Exit {
    match run::run(&args) {
        Ok((report, exit)) => {
            match args.report {
                ReportForm::Text => report.print(),
                ReportForm::Json => match serde_json::to_string(&report) {
                    Ok(line) => println!("{line}"),
                    Err(error) => eprintln!("millrace demo: {error}"),
                },
            }
            exit
        }
        Err(error) => {
            eprintln!("millrace demo: {error:#}");
            Exit::Failed
        }
    }
}
