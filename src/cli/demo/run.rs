//! The course of a demo: start, run, drain, stop, reconcile.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::DemoArgs;
use super::committed::{CommittedReader, Guard};
use super::dead_letters::DeadLetterReader;
use super::faults;
use super::fleet::Fleet;
use super::flows::FLOWS;
use super::kills::{Kill, rows_at_risk};
use super::landing::Landing;
use super::picture::{Display, Picture};
use super::reconcile::{Verdict, reconcile};
use super::report::{Percentiles, Report, Workers};
use super::scrape::{Scraper, WorkerNumbers};
use super::stage::Stage;
use crate::cli::Exit;
use crate::cli::datagen::stop_on_signal;
use crate::cli::keys::{Key, Keys};
use crate::datagen::{Brake, Generator, GeneratorSettings, Journal, Rate};

/// Short, so that a killed worker's partitions move soon. The demo's workers share two cores with everything else.
const SESSION_TIMEOUT_MS: u64 = 4_000;
/// For how long after its death a worker's last appends may land (see [`rows_at_risk`]).
const SETTLE_MS: i64 = 2_500;
const TICK: Duration = Duration::from_millis(200);
/// How long the workers may take to finish what is in the topics when nothing more is produced.
const DRAIN_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Runs the whole demo.
pub(super) fn run(args: &DemoArgs) -> Result<(Report, Exit)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let outcome = runtime.block_on(Box::pin(course(args)));
    // Blocking tasks that still wait for a broker are not waited for.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

async fn course(args: &DemoArgs) -> Result<(Report, Exit)> {
    let mut folder = tempfile::Builder::new().prefix("millrace-demo-").tempdir().context("a folder for configuration and logs")?;
    for line in args.faults.describe() {
        println!("fault: {line}");
    }
    let stage = Stage::start(args.faults, args.partitions, args.brokers, args.seed).await?;
    stage.write_files(folder.path(), SESSION_TIMEOUT_MS)?;
    println!(
        "broker {} | registry {} | BigQuery {} and {} | workers' files {}",
        stage.broker.bootstrap_servers(),
        stage.registry.url(),
        stage.bigquery.rest_url(),
        stage.bigquery.grpc_url(),
        folder.path().display()
    );
    let mut demo = Demo::start(args, stage, folder.path())?;
    let outcome = demo.play().await;
    let kept = args.keep || !matches!(outcome, Ok((_, Exit::Fine)));
    drop(demo);
    if kept {
        folder.disable_cleanup(true);
        eprintln!("kept: {}", folder.path().display());
    }
    outcome
}

struct Demo<'a> {
    args: &'a DemoArgs,
    // Dropped first: no worker outlives what it talks to.
    fleet: Fleet,
    generators: Vec<Generator>,
    journals: Vec<Arc<Journal>>,
    guard: Arc<Guard>,
    letters: Option<DeadLetterReader>,
    landing: Landing,
    stage: Stage,
    rate: Arc<Rate>,
    brake: Arc<Brake>,
    stop: Arc<AtomicBool>,
    scraper: Scraper,
    numbers: Vec<WorkerNumbers>,
    /// Of workers that are no more.
    past_possible_duplicates: u64,
    kills: Vec<Kill>,
    rng: ChaCha8Rng,
    started: Instant,
    alive: Workers,
    complaints: Vec<String>,
    display: Display,
    keys: Option<Keys>,
    picture: Picture,
    seconds: VecDeque<(Instant, u64, u64)>,
}

impl<'a> Demo<'a> {
    fn start(args: &'a DemoArgs, stage: Stage, folder: &std::path::Path) -> Result<Self> {
        let brokers = stage.broker.bootstrap_servers();
        let rate = Arc::new(Rate::new(args.rate.div_ceil(FLOWS.len() as u64)));
        let brake = Arc::new(Brake::default());
        let letters = DeadLetterReader::start(&brokers)?;
        let fleet = Fleet::start(folder.to_owned(), usize::from(args.workers))?;
        let mut generators = Vec::new();
        for (number, flow) in FLOWS.iter().enumerate() {
            generators.push(Generator::start(GeneratorSettings {
                brokers: brokers.clone(),
                topic: flow.topic.to_owned(),
                framing: stage.framing(flow),
                rate: rate.clone(),
                brake: brake.clone(),
                bad_share: args.bad_records,
                seed: args.seed.wrapping_add(number as u64),
                count: None,
                properties: Vec::new(),
            })?);
        }
        let journals: Vec<Arc<Journal>> = generators.iter().map(|g| g.journal().clone()).collect();
        let guard = Guard::start(CommittedReader::new(&brokers, args.partitions)?, journals.clone(), brake.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        tokio::spawn(stop_on_signal(stop.clone()));
        let workers = usize::from(args.workers);
        Ok(Self {
            args,
            landing: Landing::start(&stage.bigquery)?,
            stage,
            fleet,
            generators,
            journals,
            guard: Arc::new(guard),
            letters: Some(letters),
            rate,
            brake,
            stop,
            scraper: Scraper::new(),
            numbers: vec![WorkerNumbers::default(); workers],
            past_possible_duplicates: 0,
            kills: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(args.seed ^ 0x4B11),
            started: Instant::now(),
            alive: Workers { min: workers, max: workers },
            complaints: Vec::new(),
            display: Display::open(std::io::stdout().is_terminal()),
            keys: Keys::open(),
            picture: Picture { planned: args.duration, workers, ..Picture::default() },
            seconds: VecDeque::new(),
        })
    }

    async fn play(&mut self) -> Result<(Report, Exit)> {
        self.picture.phase = "running";
        let mut next_kill = self.args.kill_every.map(|every| self.started + every);
        while self.started.elapsed() < self.args.duration && !self.stop.load(Ordering::Relaxed) {
            self.tick().await?;
            if let (Some(due), Some(every)) = (next_kill, self.args.kill_every)
                && Instant::now() >= due
            {
                self.kill_one().await?;
                next_kill = Some(due + every);
            }
            if self.generators.iter().any(Generator::is_finished) {
                break;
            }
        }
        let seconds = self.started.elapsed().as_secs_f64();
        self.drain().await?;
        self.finish(seconds).await
    }

    /// One turn: ask, look, show.
    async fn tick(&mut self) -> Result<()> {
        let turn = Instant::now();
        for (number, port) in self.fleet.ports() {
            if let Some(numbers) = self.scraper.ask(port).await {
                self.numbers[number] = numbers;
            }
        }
        let crashes = self.fleet.crashes.len();
        self.fleet.replace_crashed()?;
        let new: Vec<String> = self.fleet.crashes.iter().skip(crashes).cloned().collect();
        for crash in new {
            self.event(&crash);
        }
        let alive = self.fleet.alive();
        self.alive = Workers { min: self.alive.min.min(alive), max: self.alive.max.max(alive) };
        if self.brake.is_on() && !self.picture.brake {
            self.event("slowing down: unread records take half of what the broker keeps");
        }
        self.look();
        let whole_second = self.seconds.back().is_none_or(|(at, ..)| at.elapsed() >= Duration::from_secs(1));
        if whole_second {
            self.count_second();
        }
        self.display.show(&self.picture, whole_second);
        self.listen();
        tokio::time::sleep_until((turn + TICK).into()).await;
        Ok(())
    }

    fn look(&mut self) {
        let rows = self.landing.rows();
        let (p50, p99) = self.landing.freshness();
        let held = self.numbers.iter().flat_map(|n| n.held.iter()).fold(std::collections::BTreeMap::new(), |mut all, (cause, count)| {
            *all.entry(cause.clone()).or_insert(0) += count;
            all
        });
        let faults = self.fired();
        let picture = &mut self.picture;
        picture.elapsed = self.started.elapsed();
        picture.rate_asked = self.rate.get() * FLOWS.len() as u64;
        picture.brake = self.brake.is_on();
        picture.produced = self.journals.iter().map(|j| j.records()).sum();
        picture.bad = self.journals.iter().map(|j| j.bad()).sum();
        picture.rows = rows;
        picture.lag = self.guard.lag();
        (picture.freshness_p50_ms, picture.freshness_p99_ms) = (p50, p99);
        picture.workers_alive = self.fleet.alive();
        picture.kills = self.kills.len() as u64;
        picture.resident_bytes = self.numbers.iter().map(|n| n.resident_bytes).sum();
        picture.held = held;
        picture.dead_letters = self.letters.as_ref().map_or(0, DeadLetterReader::read);
        picture.faults = faults;
    }

    fn fired(&self) -> std::collections::BTreeMap<String, u64> {
        let stage = &self.stage;
        faults::fired(self.args.faults, stage.broker.fired(), stage.registry.fired(), &stage.bigquery.faults().fired())
    }

    /// Rates over the last three seconds.
    fn count_second(&mut self) {
        self.seconds.push_back((Instant::now(), self.picture.produced, self.picture.rows));
        if self.seconds.len() > 4 {
            self.seconds.pop_front();
        }
        if let (Some(first), Some(last)) = (self.seconds.front(), self.seconds.back())
            && last.0 > first.0
        {
            let time = last.0.duration_since(first.0).as_secs_f64();
            self.picture.produced_per_s = (last.1 - first.1) as f64 / time;
            self.picture.rows_per_s = (last.2 - first.2) as f64 / time;
        }
        self.picture.history.push(self.picture.rows_per_s as u64);
        if self.picture.history.len() > 200 {
            self.picture.history.remove(0);
        }
    }

    fn listen(&mut self) {
        while let Some(key) = self.keys.as_ref().and_then(|k| k.next(Duration::ZERO)) {
            match key {
                Key::Faster => self.rate.faster(),
                Key::Slower => self.rate.slower(),
                Key::Quit => self.stop.store(true, Ordering::Relaxed),
            }
        }
    }

    fn event(&mut self, what: &str) {
        let line = format!("{:>5.1}s {what}", self.started.elapsed().as_secs_f64());
        if matches!(self.display, Display::Lines) {
            println!("{line}");
        }
        self.picture.events.push(line);
        if self.picture.events.len() > 50 {
            self.picture.events.remove(0);
        }
    }

    async fn kill_one(&mut self) -> Result<()> {
        let ports = self.fleet.ports();
        if ports.is_empty() {
            return Ok(());
        }
        let (number, port) = ports[self.rng.random_range(0..ports.len())];
        let last = self.scraper.ask(port).await;
        self.fleet.kill(number);
        let at_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let guard = self.guard.clone();
        let committed = tokio::task::spawn_blocking(move || guard.committed_now()).await.context("committed offsets at a kill")??;
        let owned = last.as_ref().map(|n| {
            let flow = |connector: &str| FLOWS.iter().position(|f| f.connector == connector);
            n.owned.iter().filter_map(|(connector, partition)| Some((flow(connector)?, *partition))).collect()
        });
        let last = last.unwrap_or_else(|| std::mem::take(&mut self.numbers[number]));
        self.past_possible_duplicates += last.possible_duplicates;
        self.numbers[number] = WorkerNumbers::default();
        self.kills.push(Kill { at_ms, committed, owned });
        let alive = self.fleet.alive();
        self.alive.min = self.alive.min.min(alive);
        self.event(&format!("worker {number} killed (SIGKILL) and started again"));
        self.fleet.start_worker(number)
    }

    /// Stops production and lets the workers finish what is there.
    async fn drain(&mut self) -> Result<()> {
        self.picture.phase = "draining";
        self.event("production stops; waiting until everything is committed");
        self.brake.set(false);
        for generator in std::mem::take(&mut self.generators) {
            let ended = tokio::task::spawn_blocking(move || generator.stop()).await.context("stopping a generator")?;
            ended.context("producing")?;
        }
        let until = Instant::now() + DRAIN_LIMIT;
        // Two looks in a row: the guard's first one may be older than the last record.
        let mut quiet = 0;
        while quiet < 3 && Instant::now() < until {
            self.tick().await?;
            quiet = if self.guard.lag() == 0 { quiet + 1 } else { 0 };
        }
        if quiet < 3 {
            self.complaints.push(format!("{} records were not committed {DRAIN_LIMIT:?} after the last was produced", self.guard.lag()));
        }
        Ok(())
    }

    async fn finish(&mut self, seconds: f64) -> Result<(Report, Exit)> {
        self.picture.phase = "reconciling";
        self.tick().await?;
        let possible = self.past_possible_duplicates + self.numbers.iter().map(|n| n.possible_duplicates).sum::<u64>();
        let stop_complaints = tokio::task::block_in_place(|| self.fleet.terminate(STOP_LIMIT));
        self.complaints.extend(stop_complaints);
        self.complaints.append(&mut self.fleet.crashes);
        let letters = self.letters.take().ok_or_else(|| anyhow!("dead letters were read already"))?;
        let (letters, unreadable) = tokio::task::block_in_place(|| letters.finish(Duration::from_secs(20)))?;
        self.complaints.extend(unreadable.into_iter().take(10).map(|u| format!("dead letter {u}")));
        let rows = tokio::task::block_in_place(|| self.landing.finish());
        self.complaints.extend(self.landing.unreadable().map(|u| format!("unreadable row: {u}")));
        let mut verdict = Verdict::default();
        let mut bound = possible;
        for (number, (flow, flow_rows)) in FLOWS.iter().zip(rows).enumerate() {
            bound += rows_at_risk(number, &flow_rows, &self.kills, SETTLE_MS);
            let journal = &self.journals[number];
            let entries: Vec<_> = (0..journal.partitions()).map(|p| journal.partition(p)).collect();
            verdict.add(reconcile(flow.topic, &entries, flow_rows, &letters[number]));
        }
        if let Some(failure) = self.journals.iter().find_map(|j| j.last_failure()) {
            self.event(&format!("a record was not acknowledged: {failure}"));
        }
        let (p50, p99) = self.landing.freshness();
        let report = Report {
            verdict: "",
            produced: 0,
            durable_distinct: 0,
            duplicates: 0,
            duplicates_bound: bound,
            missing: 0,
            wrong_content: 0,
            unexpected_rows: 0,
            bad_records: 0,
            dead_letters: 0,
            duplicate_dead_letters: 0,
            missing_dead_letters: 0,
            wrong_dead_letters: 0,
            unacknowledged: self.journals.iter().map(|j| j.failed()).sum(),
            freshness_ms: Percentiles { p50, p99 },
            workers: self.alive,
            kills: self.kills.len() as u64,
            faults: self.fired(),
            brakes: self.brake.times(),
            seed: self.args.seed,
            seconds,
            complaints: std::mem::take(&mut self.complaints),
        };
        Ok(report.decide(verdict))
    }
}
