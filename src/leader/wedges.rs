//! The leader wedged: by brokers that are asked for longer than anyone may stand still, and by a number of workers that nobody ever
//! answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::measure::Measurer;
use super::term::Until;
use super::{Leadership, Monitor, Replicas, Scale, Sizing, StoreError, SystemTimer, Term};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::{Exchange, FleetView, Identity};
use crate::kafka::ClusterSettings;
use crate::watchdog::{Limits, last_words};

/// A step may take as long as a turn: both wedges are within announced steps.
const LIMITS: Limits =
    Limits { stand_still: Duration::from_secs(1), long_step: Duration::from_millis(1500), tick: Duration::from_millis(50) };
const HEARD_WITHIN: Duration = Duration::from_secs(15);

fn fleet() -> Arc<FleetConfig> {
    let toml = "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\n[scaling]\nmode = \"observe\"\n";
    Arc::new(toml::from_str(toml).unwrap())
}

fn connector() -> Arc<ConnectorConfig> {
    let mut config: ConnectorConfig = toml::from_str("topics = [\"t\"]\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n").unwrap();
    config.name = "numbers".to_owned();
    Arc::new(config)
}

/// Never answers, whatever time it is given.
struct Silent;

#[async_trait]
impl Replicas for Silent {
    async fn read(&self, _timeout: Duration) -> Result<Scale, StoreError> {
        std::future::pending().await
    }

    async fn write(&self, _version: &str, _replicas: u32, _timeout: Duration) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[test]
fn a_leader_that_waits_for_an_answer_for_good() {
    let heard = last_words("the leader's loop", LIMITS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fleet, timer) = (fleet(), Arc::new(SystemTimer::default()));
    let identity = Identity { name: "w".to_owned(), ordinal: None };
    let view = Arc::new(FleetView::new(identity, &fleet.scaling, timer.clone()));
    let exchange = Arc::new(Exchange::start(&ClusterSettings::of_fleet(&fleet), &fleet.scaling, view.clone()).unwrap());
    let (_elects, leadership) = watch::channel(Leadership::Leader(Term::new(1, Until::NEVER, Duration::MAX, timer.clone())));
    let monitor = Monitor {
        fleet,
        connectors: Box::new(Vec::new),
        view,
        exchange,
        leadership,
        sizing: Sizing::Sets(Arc::new(Silent)),
        page: Arc::new(Mutex::new(None)),
        timer,
    };
    let stop = CancellationToken::new();
    runtime.spawn(monitor.run(stop.clone()));
    let words = heard.recv_timeout(HEARD_WITHIN).unwrap();
    assert!(words.starts_with("wedged: ") && words.contains("the leader's loop") && words.contains("a decision and its resize"), "{words}");
    runtime.shutdown_background();
}

#[test]
fn a_look_at_the_brokers_that_does_not_come_back() {
    let heard = last_words("the leader's measuring", LIMITS);
    // Nobody answers at that address: the look comes back after its own, longer timeout.
    let looking = std::thread::spawn(|| Measurer::new(fleet(), Arc::new(SystemTimer::default())).look(&[connector()], &[]));
    let words = heard.recv_timeout(HEARD_WITHIN).unwrap();
    assert!(words.starts_with("wedged: ") && words.contains("the leader's measuring of the fleet"), "{words}");
    assert!(words.contains("asking the brokers for a connector's offsets"), "{words}");
    let measures = looking.join().unwrap();
    assert!(measures[0].trouble.is_some(), "it was no wedge but a slow look: {:?}", measures[0].trouble);
}
