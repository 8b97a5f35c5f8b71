//! `millrace check`: files first, then connections and permissions; says what it tried and what came out. Starts nothing, joins no group,
//! changes nothing.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::check_schemas::{self, Source};
use super::check_streams::against_quotas;
use super::run::ConfigArgs;
use super::stdout::say;
use super::{authorities, check_table};
use crate::bigquery::{self, BigQuery};
use crate::config::{BadRecords, ConnectorConfig, Guarantee, Loaded, ValueFormat};
use crate::kafka::{self, GroupSettings, LagClient};
use crate::schema::{FolderSource, RegistrySource};

/// Arguments of `millrace check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Look at the files only: connect to nothing.
    #[arg(long)]
    files_only: bool,
    /// How long one question may take.
    #[arg(long, default_value = "10s")]
    timeout: humantime::Duration,
}

/// Prints one line for each thing that was tried. 0 when all went well, 1 when something failed, 2 when the files have mistakes.
pub fn check(args: &CheckArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if !args.files_only
        && let Err(error) = authorities::trust(&loaded.fleet)
    {
        eprintln!("millrace: {error}");
        return Exit::Failed;
    }
    let mut report = Report::default();
    report.good("files", format!("{} and {} connectors, no mistake found", args.config.config.display(), loaded.connectors.len()));
    if !args.files_only {
        let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("millrace: {error}");
                return Exit::Failed;
            }
        };
        runtime.block_on(connections(&loaded, args.timeout.into(), &mut report));
        runtime.shutdown_background();
    }
    say!("{} tried, {} failed", report.tried, report.failed);
    if report.failed == 0 { Exit::Fine } else { Exit::Failed }
}

/// Lines on stdout, as they come: ✓ for what works, ✗ for what does not, · for what is worth knowing.
#[derive(Debug, Default)]
pub(super) struct Report {
    tried: usize,
    failed: usize,
}

impl Report {
    /// A heading.
    pub(super) fn part(&mut self, name: &str) {
        say!("{name}");
    }
    /// It works.
    pub(super) fn good(&mut self, what: &str, outcome: impl AsRef<str>) {
        self.tried += 1;
        line("✓", what, outcome.as_ref());
    }
    /// It does not work.
    pub(super) fn bad(&mut self, what: &str, outcome: impl AsRef<str>) {
        self.tried += 1;
        self.failed += 1;
        line("✗", what, outcome.as_ref());
    }
    /// It works or does not.
    pub(super) fn outcome(&mut self, what: &str, outcome: Result<impl AsRef<str>, impl AsRef<str>>) {
        match outcome {
            Ok(good) => self.good(what, good),
            Err(bad) => self.bad(what, bad),
        }
    }
    /// Not tried, or worth knowing.
    pub(super) fn note(&mut self, what: &str, outcome: impl AsRef<str>) {
        line("·", what, outcome.as_ref());
    }
}

fn line(mark: &str, what: &str, outcome: &str) {
    if outcome.is_empty() { say!("  {mark} {what}") } else { say!("  {mark} {what}: {outcome}") }
}

async fn connections(loaded: &Loaded, timeout: Duration, report: &mut Report) {
    let fleet = &loaded.fleet;
    report.part("BigQuery");
    let bigquery = match bigquery::connect(&fleet.bigquery, fleet.worker.ca_file.as_deref()).await {
        Ok(bigquery) => {
            let token = within(timeout, bigquery.check_token()).await;
            let what = if fleet.bigquery.credentials == "none" { "no credentials, as configured" } else { "got a token" };
            report.outcome("credentials", token.map(|()| what));
            Some(bigquery)
        }
        Err(error) => {
            report.bad("settings", error.to_string());
            None
        }
    };
    let registry = registry(loaded, timeout, report).await;
    let mut exact_partitions = 0;
    for connector in &loaded.connectors {
        report.part(&format!("connector {}", connector.name));
        kafka_side(loaded, connector, timeout, report).await;
        let source = match (&connector.value.schemas, &registry) {
            (Some(folder), _) => schemas_of(folder, report).await,
            (None, Some(registry)) => Source::Registry(registry),
            (None, None) => Source::Nowhere,
        };
        tables(loaded, connector, bigquery.as_ref(), source, timeout, report).await;
        if connector.delivery.guarantee == Guarantee::ExactlyOnce {
            exact_partitions += partitions_of(loaded, connector, timeout, report).await;
        }
    }
    if exact_partitions > 0 {
        report.part("Exactly once");
        report.outcome("write streams", against_quotas(exact_partitions, fleet.bigquery.location.as_deref()));
    }
}

/// A question with a time limit.
pub(super) async fn within<T, E: ToString>(timeout: Duration, question: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(timeout, question).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(timeout))),
    }
}

/// Tries the registry; gives it when it answers.
async fn registry(loaded: &Loaded, timeout: Duration, report: &mut Report) -> Option<RegistrySource> {
    let registry = loaded.fleet.registry.as_ref()?;
    report.part("Schema registry");
    if !loaded.connectors.iter().any(|c| c.value.format == ValueFormat::Avro && c.value.schemas.is_none()) {
        report.note("not tried", "no connector takes schemas from it");
        return None;
    }
    let what = registry.urls.join(", ");
    match RegistrySource::new(registry, loaded.fleet.worker.ca_file.as_deref()) {
        Ok(source) => {
            let probed = within(timeout, source.probe()).await;
            let answers = probed.is_ok();
            report.outcome(&what, probed.map(|()| "answers and takes the credentials"));
            answers.then_some(source)
        }
        Err(error) => {
            report.bad(&what, error.to_string());
            None
        }
    }
}

async fn kafka_side(loaded: &Loaded, connector: &ConnectorConfig, timeout: Duration, report: &mut Report) {
    let settings = GroupSettings::of(&loaded.fleet, connector, loaded.fleet.worker.memory.bytes() / 4);
    let dead = (connector.errors.bad_records == BadRecords::DeadLetter).then(|| connector.dead_letter_topic());
    for tried in kafka::check_connector(&settings, dead.as_deref(), timeout).await {
        report.outcome(&tried.what, tried.outcome);
    }
}

/// How many partitions the connector's topics have now.
async fn partitions_of(loaded: &Loaded, connector: &ConnectorConfig, timeout: Duration, report: &mut Report) -> u64 {
    let settings = GroupSettings::of(&loaded.fleet, connector, loaded.fleet.worker.memory.bytes() / 4);
    let asked = tokio::task::spawn_blocking(move || LagClient::new(&settings)?.partitions(timeout)).await;
    match asked {
        Ok(Ok(partitions)) => partitions.len() as u64,
        Ok(Err(error)) => {
            report.bad("partitions", error.to_string());
            0
        }
        Err(error) => {
            report.bad("partitions", format!("asking for them panicked: {error}"));
            0
        }
    }
}

/// Reads every schema of the connector's folder; gives the source and the names that can be used.
async fn schemas_of(folder: &Path, report: &mut Report) -> Source<'static> {
    let source = FolderSource::new(folder.to_owned());
    let what = format!("schemas in {}", folder.display());
    let probing = source.clone();
    match tokio::task::spawn_blocking(move || probing.probe()).await {
        Ok(Ok((names, errors))) => {
            for error in &errors {
                report.bad(&what, error.to_string());
            }
            if names.is_empty() {
                report.bad(&what, "none that can be used");
            } else {
                report.good(&what, format!("{} can be used", names.len()));
            }
            Source::Folder(source, names)
        }
        Ok(Err(error)) => {
            report.bad(&what, error.to_string());
            Source::Nowhere
        }
        Err(error) => {
            report.bad(&what, format!("reading them panicked: {}", crate::telemetry::panics::join_words(error)));
            Source::Nowhere
        }
    }
}

async fn tables(
    loaded: &Loaded,
    connector: &ConnectorConfig,
    bigquery: Option<&BigQuery>,
    source: Source<'_>,
    timeout: Duration,
    report: &mut Report,
) {
    let schemas = check_schemas::mapped(connector, &loaded.fleet, source, timeout, report).await;
    match bigquery {
        Some(bigquery) => check_table::tables(connector, bigquery, &schemas, timeout, report).await,
        None => {
            report.note("tables", "not looked at: BigQuery's settings cannot be used");
            check_table::tables_unseen(connector, &loaded.fleet.bigquery.project, &schemas, report);
        }
    }
}
