//! The supervisor's tasks wedged by a lock that nobody gives back, as the worst bug does it: each says so by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::configuration::Configuration;
use super::slots::Slot;
use super::worker::Worker;
use super::{fleet, watch};
use crate::config::FleetConfig;
use crate::flow::{Budget, SystemClock};
use crate::http::WorkerState;
use crate::pipeline::WorkerShared;
use crate::watchdog::{Limits, last_words};

const LIMITS: Limits = Limits { stand_still: Duration::from_secs(3), long_step: Duration::from_secs(20), tick: Duration::from_millis(50) };
const HEARD_WITHIN: Duration = Duration::from_secs(20);

/// A worker with one connector that does not run.
pub(super) fn worker() -> Arc<Worker> {
    let connector = toml::from_str("topics = [\"t\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n").unwrap();
    Arc::new(Worker {
        slots: RwLock::new(vec![Arc::new(Slot::new(Arc::new(connector), 0, 1))]),
        configuration: Configuration::new(&BTreeMap::new(), 1),
        changes: TaskTracker::new(),
        draining: CancellationToken::new(),
        state: Mutex::new(WorkerState::Running),
        budget: Budget::new(1 << 30),
        clock: SystemClock::new(),
        started_ms: 1,
        prometheus: metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder().handle(),
        fleet: OnceLock::new(),
    })
}

#[test]
fn each_task_that_waits_for_the_slots_for_good_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("replicas"), "1").unwrap();
    let toml = format!(
        "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\n[scaling]\nmode = \"local\"\nlock_file = {:?}\n\
         replicas_file = {:?}\nreport_interval = \"1s\"\ndecide_interval = \"1s\"\n",
        path("lock"),
        path("replicas")
    );
    let config: Arc<FleetConfig> = Arc::new(toml::from_str(&toml).unwrap());
    let tasks = ["the supervisor's look at its connectors", "the reports to the fleet", "the election and the leader's task"];
    let heard = tasks.map(|task| (task, last_words(task, LIMITS)));

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let worker = worker();
    let life = {
        let _entered = runtime.enter();
        let shared = WorkerShared::new(worker.budget.clone(), runtime.handle().clone(), config.bigquery.text_literals);
        runtime.spawn(watch::watch(worker.clone()));
        let life = fleet::start(&config, &worker, Arc::new(shared));
        assert!(life.is_some(), "a fleet in local mode");
        life
    };
    for (task, heard) in &heard {
        assert!(heard.recv_timeout(LIMITS.stand_still).is_err(), "{task} turns");
    }
    let held = worker.slots.write();
    for (task, heard) in &heard {
        let words = heard.recv_timeout(HEARD_WITHIN).unwrap_or_else(|error| panic!("{task}: {error}"));
        assert!(words.starts_with("wedged: no progress for ") && words.contains(task), "{words}");
    }
    drop(held);
    drop(life);
    runtime.shutdown_background();
}
