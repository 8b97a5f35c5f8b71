//! The course of a demo: start, run, drain, stop, reconcile.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::DemoArgs;
use super::committed::{CommittedReader, Guard};
use super::dead_letters::DeadLetterReader;
use super::fleet::Fleet;
use super::fleet_file::{self, FleetFile};
use super::fleet_view::FleetView;
use super::flows::FLOWS;
use super::kills::Kill;
use super::landing::Landing;
use super::meter::Meter;
use super::picture::{Display, Picture};
use super::report::{Report, Workers};
use super::resize::Follower;
use super::scrape::{Scraper, WorkerNumbers};
use super::stage::{self, Stage};
use crate::cli::Exit;
use crate::cli::datagen::stop_on_signal;
use crate::cli::keys::Keys;
use crate::cli::stdout::say;
use crate::datagen::{Brake, Generator, GeneratorSettings, Journal, Rate};

/// How long the workers may take to finish what is in the topics when nothing more is produced.
const DRAIN_LIMIT: Duration = Duration::from_secs(90);
/// How long the workers may take from their start until they own all partitions.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

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
    for line in args.faults.describe(args.is_exact()) {
        say!("fault: {line}");
    }
    if args.is_exact() {
        say!("exactly once: {}", stage::setting());
    }
    let stage = Stage::start(args.faults, args.is_exact(), args.partitions, args.brokers, args.seed).await?;
    stage.write_files(folder.path(), &FleetFile::of(args, folder.path())?, args.is_exact())?;
    say!(
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

pub(super) struct Demo<'a> {
    pub(super) args: &'a DemoArgs,
    // Dropped first: no worker outlives what it talks to.
    pub(super) fleet: Fleet,
    pub(super) generators: Vec<Generator>,
    pub(super) journals: Vec<Arc<Journal>>,
    pub(super) guard: Arc<Guard>,
    pub(super) letters: Option<DeadLetterReader>,
    pub(super) landing: Landing,
    pub(super) stage: Stage,
    /// What the generators make of each flow: `full_rate` in the load's shape.
    pub(super) rate: Arc<Rate>,
    /// What the keys change, of both flows together.
    pub(super) full_rate: Rate,
    pub(super) brake: Arc<Brake>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) scraper: Scraper,
    pub(super) numbers: Vec<WorkerNumbers>,
    /// Of workers that are no more.
    pub(super) past_possible_duplicates: u64,
    pub(super) kills: Vec<Kill>,
    pub(super) leader_kills: u64,
    /// With `--scale on`.
    pub(super) follower: Option<Follower>,
    pub(super) fleet_view: FleetView,
    /// When production began, milliseconds since the epoch.
    pub(super) began_ms: i64,
    /// Workers that were told to leave and did.
    pub(super) departures: u64,
    /// Those of them whose last commit the broker refused: as good as killed, for the bound on duplicates.
    pub(super) refused_departures: Vec<Kill>,
    pub(super) meter: Meter,
    pub(super) metered: Instant,
    pub(super) rng: ChaCha8Rng,
    pub(super) started: Instant,
    pub(super) alive: Workers,
    pub(super) complaints: Vec<String>,
    pub(super) display: Display,
    pub(super) keys: Option<Keys>,
    pub(super) picture: Picture,
    pub(super) seconds: VecDeque<(Instant, u64, u64)>,
}

impl<'a> Demo<'a> {
    fn start(args: &'a DemoArgs, stage: Stage, folder: &Path) -> Result<Self> {
        let brokers = stage.broker.bootstrap_servers();
        let rate = Arc::new(Rate::new(0));
        let brake = Arc::new(Brake::default());
        let letters = DeadLetterReader::start(&brokers)?;
        let fleet = Fleet::start(folder.to_owned(), usize::from(args.workers))?;
        let journals: Vec<Arc<Journal>> = FLOWS.iter().map(|_| Arc::new(Journal::default())).collect();
        let guard = Guard::start(CommittedReader::new(&brokers, args.partitions)?, journals.clone(), brake.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        tokio::spawn(stop_on_signal(stop.clone()));
        let workers = usize::from(args.workers);
        Ok(Self {
            args,
            landing: Landing::start(&stage.bigquery)?,
            stage,
            fleet,
            generators: Vec::new(),
            journals,
            guard: Arc::new(guard),
            letters: Some(letters),
            rate,
            brake,
            stop,
            full_rate: Rate::new(args.rate),
            scraper: Scraper::new(),
            numbers: vec![WorkerNumbers::default(); workers],
            past_possible_duplicates: 0,
            kills: Vec::new(),
            leader_kills: 0,
            follower: args.scales().then(|| Follower::new(fleet_file::replicas_file(folder), workers)),
            fleet_view: FleetView::default(),
            began_ms: now_ms(),
            departures: 0,
            refused_departures: Vec::new(),
            meter: Meter::new(args.partitions.unsigned_abs()),
            metered: Instant::now(),
            rng: ChaCha8Rng::seed_from_u64(args.seed ^ 0x4B11),
            started: Instant::now(),
            alive: Workers { min: workers, max: workers },
            complaints: Vec::new(),
            display: Display::open(std::io::stdout().is_terminal()),
            keys: Keys::open(),
            picture: Picture { planned: args.duration, load: args.load.as_str(), scales: args.scales(), ..Picture::default() },
            seconds: VecDeque::new(),
        })
    }

    async fn play(&mut self) -> Result<(Report, Exit)> {
        self.wait_until_ready().await?;
        self.produce()?;
        self.picture.phase = "running";
        self.metered = self.started;
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

    /// Until the workers own every partition: what they need to start is no part of the freshness.
    async fn wait_until_ready(&mut self) -> Result<()> {
        self.picture.phase = "starting";
        let begun = Instant::now();
        while !self.all_partitions_are_owned(&self.fleet.serving()) {
            self.tick().await?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if begun.elapsed() > READY_LIMIT {
                bail!("the workers do not own all partitions {READY_LIMIT:?} after their start");
            }
        }
        self.event(&format!("the workers own all partitions {:.1} s after their start", begun.elapsed().as_secs_f64()));
        if let Some((_, port)) = self.fleet.ports().first() {
            self.event(&format!("one of them shows the fleet: millrace status --url http://127.0.0.1:{port} --watch"));
        }
        (self.started, self.began_ms) = (Instant::now(), now_ms());
        Ok(())
    }

    fn produce(&mut self) -> Result<()> {
        self.follow_load();
        for (number, flow) in FLOWS.iter().enumerate() {
            let settings = GeneratorSettings {
                brokers: self.stage.broker.bootstrap_servers(),
                topic: flow.topic.to_owned(),
                framing: self.stage.framing(flow),
                rate: self.rate.clone(),
                brake: self.brake.clone(),
                bad_share: self.args.bad_records,
                seed: self.args.seed.wrapping_add(number as u64),
                count: None,
                // The mock cluster checks no sequence numbers: a batch behind a refused one is stored before it, where Kafka refuses both.
                // One request at a time keeps the producer's books and the topic's alike.
                properties: vec![("max.in.flight.requests.per.connection".to_owned(), "1".to_owned())],
            };
            self.generators.push(Generator::start(settings, self.journals[number].clone())?);
        }
        Ok(())
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
}
