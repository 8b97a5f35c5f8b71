//! `millrace simulate`: scaling policies side by side on simulated fleets.
//!
//! Belongs here: arguments, the CSV of a trace, the table, the chart. Does not belong here: the model and the policies (`scaling`).

mod chart;
mod table;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::Exit;
use super::arguments::duration;
use super::stdout::say;
use crate::scaling::simulation::{Case, Fixed, Hidden, Policy, Shape, Trace, compare, plan, run};
use crate::scaling::{Assignor, RebalanceProtocol};

/// Arguments of `millrace simulate`. What is not named is drawn by the seed: partitions, sizes, capacities, intervals, windows, assignors.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Made traces: step, ramp, day, flash, saw, burst, hot, slow, outage, quota, or all.
    #[arg(long, value_delimiter = ',', default_value = "all", conflicts_with = "csv", value_parser = shape)]
    trace: Vec<Shapes>,
    /// A trace from a file: second,partition,records/s in rows; a rate holds until the partition's next row. Needs --capacity.
    #[arg(long, value_name = "FILE", requires = "capacity")]
    csv: Option<PathBuf>,
    /// The first seed. The policy was tuned on seeds below 61.
    #[arg(long, default_value_t = 1000)]
    seed: u64,
    /// How many seeds, from the first one on.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Who decides.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "millrace,keda,flink,one-per-partition")]
    policy: Vec<Who>,
    /// Length of a made trace.
    #[arg(long, value_parser = duration, default_value = "2h")]
    length: Duration,
    /// Partitions.
    #[arg(long)]
    partitions: Option<usize>,
    /// The largest load of a made trace, in workers.
    #[arg(long)]
    peak: Option<f64>,
    /// What one worker can do, records/s.
    #[arg(long)]
    capacity: Option<f64>,
    /// Time between decisions.
    #[arg(long, value_parser = duration)]
    interval: Option<Duration>,
    /// Rates are means over this time, one minute at most.
    #[arg(long, value_parser = duration)]
    window: Option<Duration>,
    /// Who gives partitions to workers.
    #[arg(long, value_enum)]
    assignor: Option<AssignorName>,
    /// What a rebalance stops: 3 s for what moves (cooperative) or 8 s for all (eager).
    #[arg(long, value_enum)]
    protocol: Option<ProtocolName>,
    /// Never fewer workers.
    #[arg(long)]
    min: Option<u32>,
    /// Never more workers; as many as partitions unless named.
    #[arg(long)]
    max: Option<u32>,
    /// Later records are late.
    #[arg(long, value_parser = duration, default_value = "30s")]
    freshness_target: Duration,
    /// A backlog is to be gone within this time.
    #[arg(long, value_parser = duration, default_value = "5m")]
    recovery_target: Duration,
    /// What snapshots leave out. Without `waiting` a fleet does not hold joins back: each worker joins when it has started.
    #[arg(long, value_enum, value_delimiter = ',')]
    hide: Vec<Field>,
    /// A line of JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Also print every resize of ours with its reason.
    #[arg(long)]
    reasons: bool,
    /// A chart of the first case: load, workers, lag in seconds.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Shapes(Vec<Shape>);

fn shape(text: &str) -> Result<Shapes, String> {
    if text == "all" {
        return Ok(Shapes(Shape::ALL.to_vec()));
    }
    let found = Shape::ALL.into_iter().find(|s| s.name() == text);
    let names = Shape::ALL.map(Shape::name).join(", ");
    found.map(|s| Shapes(vec![s])).ok_or_else(|| format!("`{text}` is no made trace: {names}, all"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    Millrace,
    Keda,
    Flink,
    OnePerPartition,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AssignorName {
    CooperativeSticky,
    Range,
    Uniform,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolName {
    Cooperative,
    Eager,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Field {
    Busy,
    Ready,
    Waiting,
    Lag,
    Produced,
    Consumed,
    Offsets,
}

impl SimulateArgs {
    fn fixed(&self) -> Result<Fixed, String> {
        let hides = |field| self.hide.contains(&field);
        for (name, value) in [("--peak", self.peak), ("--capacity", self.capacity)] {
            if value.is_some_and(|v| !(v > 0.0 && v <= 1e9)) {
                return Err(format!("{name} must be above 0 and at most 1e9"));
            }
        }
        if self.partitions.is_some_and(|p| p == 0 || p > 5000) || self.length > Duration::from_secs(7 * 86_400) {
            return Err("--partitions must be 1 to 5000, --length at most 7 days".to_owned());
        }
        if self.freshness_target < Duration::from_secs(1) || self.recovery_target < Duration::from_secs(1) {
            return Err("targets must be at least 1s".to_owned());
        }
        Ok(Fixed {
            seconds: Some(self.length.as_secs() as usize),
            partitions: self.partitions,
            peak: self.peak,
            capacity: self.capacity,
            interval_s: self.interval.map(|i| i.as_secs() as usize),
            window_s: self.window.map(|w| w.as_secs() as usize),
            assignor: self.assignor.map(|a| match a {
                AssignorName::CooperativeSticky => Assignor::CooperativeSticky,
                AssignorName::Range => Assignor::Range,
                AssignorName::Uniform => Assignor::Uniform,
            }),
            protocol: self.protocol.map(|p| match p {
                ProtocolName::Cooperative => RebalanceProtocol::Cooperative,
                ProtocolName::Eager => RebalanceProtocol::Eager,
            }),
            min: self.min,
            max: self.max,
            freshness_target_ms: Some(self.freshness_target.as_millis() as u64),
            recovery_target_ms: Some(self.recovery_target.as_millis() as u64),
            hidden: Hidden {
                busy: hides(Field::Busy),
                ready: hides(Field::Ready),
                waiting: hides(Field::Waiting),
                lag: hides(Field::Lag),
                produced: hides(Field::Produced),
                consumed: hides(Field::Consumed),
                offsets: hides(Field::Offsets),
            },
        })
    }

    fn policies(&self) -> Vec<Policy> {
        let of = |who: &Who| match who {
            Who::Millrace => vec![Policy::Ours(Box::default())],
            // The best threshold differs from trace to trace: some stand beside each other.
            Who::Keda => [1.0, 2.0, 5.0, 10.0].map(Policy::Keda).to_vec(),
            Who::Flink => vec![Policy::Flink],
            Who::OnePerPartition => vec![Policy::OnePerPartition],
        };
        self.policy.iter().flat_map(of).collect()
    }

    fn cases(&self, fixed: &Fixed) -> Result<Vec<Case>, String> {
        let seeds = self.seed..self.seed.saturating_add(self.seeds.max(1));
        if let Some(path) = &self.csv {
            let trace = read(path, self.capacity.unwrap_or(1.0))?;
            return Ok(seeds.map(|seed| Case::given(trace.clone(), seed, fixed)).collect());
        }
        let shapes = || self.trace.iter().flat_map(|s| s.0.iter().copied());
        Ok(shapes().flat_map(|shape| seeds.clone().map(move |seed| Case::made(shape, seed, fixed))).collect())
    }
}

/// Reads a trace. A first row that is no numbers is a heading.
fn read(path: &Path, capacity: f64) -> Result<Trace, String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut reader = csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).from_path(path).map_err(|e| at(&e))?;
    let mut rows = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|e| at(&e))?;
        let row = (|| Some((record.get(0)?.parse().ok()?, record.get(1)?.parse().ok()?, record.get(2)?.parse().ok()?)))();
        match row {
            Some(row) if record.len() == 3 => rows.push(row),
            _ if number == 0 => {}
            _ => return Err(at(&format!("row {}: not `second,partition,records/s`", number + 1))),
        }
    }
    let name = path.file_name().map_or_else(|| "csv".to_owned(), |n| n.to_string_lossy().into_owned());
    Trace::from_rows(&name, &rows, capacity).map_err(|e| at(&e))
}

/// Runs the comparison and prints it. Equal arguments print equal bytes.
pub fn simulate(args: &SimulateArgs) -> Exit {
    let cases = match args.fixed().and_then(|fixed| args.cases(&fixed)) {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("millrace simulate: {error}");
            return Exit::Usage;
        }
    };
    let policies = args.policies();
    let rows = compare(&cases, &policies);
    if args.json {
        say!("{}", json!({ "seed": args.seed, "seeds": args.seeds, "cases": cases.len(), "rows": rows }));
    } else {
        say!("{}", table::table(&rows));
        say!("{}", table::LEGEND);
    }
    if args.reasons {
        for case in &cases {
            say!("\n{}, seed {}, {} partitions", case.class, case.seed, case.trace.shares.len());
            for (second, _, _, reason) in run(&case.setting, &case.trace, &Policy::Ours(Box::default())).reasons {
                say!("  {second:>6} s  {reason}");
            }
        }
    }
    if let (Some(path), Some(case)) = (&args.svg, cases.first()) {
        let outcomes: Vec<_> = policies.iter().map(|p| (p.name(), run(&case.setting, &case.trace, p))).collect();
        if let Err(error) = chart::draw(path, case, &plan(&case.setting, &case.trace), &outcomes) {
            eprintln!("millrace simulate: {}: {error}", path.display());
            return Exit::Failed;
        }
    }
    Exit::Fine
}
