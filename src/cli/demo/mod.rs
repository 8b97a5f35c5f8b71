//! `millrace demo`: broker, registry and BigQuery in this process, workers as real processes, and the proof that nothing was lost.

mod committed;
mod dead_letters;
mod decisions;
mod exact;
mod faults;
mod finish;
mod fleet;
mod fleet_file;
mod fleet_view;
mod flows;
mod freshness;
mod killing;
mod kills;
mod landing;
mod meter;
mod picture;
mod reconcile;
mod report;
mod resize;
mod run;
mod scrape;
mod stage;
mod turn;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Exit;
use super::arguments;
use super::stdout::say;
use crate::datagen::LoadShape;
pub(super) use faults::Profile;

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ReportForm {
    /// For people.
    Text,
    /// One JSON object, the last line on stdout.
    Json,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What the demo's connectors promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Promise {
    AtLeastOnce,
    ExactlyOnce,
}

/// What one worker takes a second when the fleet sizes itself: little enough for a load of some ten thousand to need several.
const SCALING_CAPACITY: u64 = 8_000;

/// Arguments of `millrace demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long records are produced.
    #[arg(long = "for", value_parser = arguments::duration, default_value = "75s")]
    duration: Duration,
    /// Records a second, of both topics together, at the most that the load's shape asks for. Keys: `+` a quarter more, `-` a fifth less,
    /// `*` ten times as many, `/` a tenth.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// How the rate rises and falls over the run.
    #[arg(long, value_enum, default_value = "flash")]
    load: LoadShape,
    /// Partitions of each topic.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// Worker processes at the start, and the fewest.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// The most worker processes, with `--scale on`; never more than partitions.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    max_workers: u16,
    /// Whether the fleet sizes itself.
    #[arg(long, value_enum, default_value = "on")]
    scale: Switch,
    /// Records a second that one worker takes at most [default: 8000 with `--scale on`, no limit with `off`].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    capacity: Option<u64>,
    /// Brokers of the embedded cluster.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    brokers: u16,
    /// The share of records that are bad on purpose, of each kind in turn.
    #[arg(long, value_parser = arguments::share, default_value = "0.1%")]
    bad_records: f64,
    /// Kill a worker (SIGKILL) this often and start it again; every second time the leader of the fleet.
    #[arg(long, value_parser = arguments::duration)]
    kill_every: Option<Duration>,
    /// What the connectors promise: exactly once must end without a single duplicate, whatever is killed.
    #[arg(long, value_enum, default_value = "at-least-once")]
    guarantee: Promise,
    /// With exactly once and kills: how many takeovers must have found appends that had landed and that nobody had committed. With fewer
    /// the run proves nothing about them, and its verdict is `inconclusive` [default: 20 with `--guarantee exactly-once --kill-every`].
    #[arg(long, requires_all = ["guarantee", "kill_every"])]
    landed_takeovers: Option<u64>,
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

impl DemoArgs {
    /// Whether each record must be one row.
    fn is_exact(&self) -> bool {
        self.guarantee == Promise::ExactlyOnce
    }

    /// How many takeovers with landed appends the run must show.
    fn landed_takeovers(&self) -> u64 {
        let default = if self.is_exact() && self.kill_every.is_some() { exact::LANDED_TAKEOVERS } else { 0 };
        self.landed_takeovers.unwrap_or(default)
    }

    /// Whether the fleet sizes itself.
    fn scales(&self) -> bool {
        self.scale == Switch::On
    }

    /// The limit of one worker, records a second.
    fn worker_capacity(&self) -> Option<u64> {
        self.capacity.or(self.scales().then_some(SCALING_CAPACITY))
    }

    /// The fewest and the most workers of a fleet that sizes itself.
    fn limits(&self) -> (u16, u16) {
        let partitions = u16::try_from(self.partitions).unwrap_or(u16::MAX);
        (self.workers, self.max_workers.min(partitions).max(self.workers))
    }
}

/// Runs the demo. 0: all there; 1: something is missing, wrong, or there too often; 3: a fault with a rate never fired, or too few
/// takeovers met appends that had landed.
pub fn demo(args: DemoArgs) -> Exit {
    match run::run(&args) {
        Ok((report, exit)) => {
            match args.report {
                ReportForm::Text => report.print(),
                ReportForm::Json => match serde_json::to_string(&report) {
                    Ok(line) => say!("{line}"),
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
