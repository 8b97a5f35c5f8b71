//! The elector and the scale against the real API server: versions, labels, a missing Lease, a hand-over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use millrace::leader::kubernetes::{KubernetesLease, KubernetesScale, Place};
use millrace::leader::{Candidate, Elector, Leadership, Replicas, Resized, StoreError, SystemTimer, Term, Timing, resize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::harness::plane::Plane;
use crate::harness::registry::block;
use crate::harness::servers::Servers;

const RELEASE: &str = "lease";
/// A term of which a machine that stands still for some seconds takes nothing; nobody waits for its end here.
const TIMING: Timing =
    Timing { lease_duration: Duration::from_secs(30), renew_deadline: Duration::from_secs(20), retry_period: Duration::from_millis(500) };
const SOON: Duration = Duration::from_secs(60);

/// One of two leads; the scale it read is written once; a stale version is refused; a stop hands over; a Lease that is gone is said.
pub fn one_leads_and_stale_writes_are_refused(servers: &Servers) -> anyhow::Result<()> {
    let plane = servers.plane()?;
    let chart = format!("{}/deploy/chart", env!("CARGO_MANIFEST_DIR"));
    plane.helm(&["install", RELEASE, &chart, "--set", &format!("fullnameOverride={RELEASE}")])?;
    let config = plane.service_account(RELEASE)?;
    block(async {
        let config: Kubeconfig = serde_json::from_value(config)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        scenario(plane, kube::Client::try_from(config)?).await
    })?;
    plane.helm(&["uninstall", RELEASE]).map(drop)
}

async fn scenario(plane: &Plane, client: kube::Client) -> anyhow::Result<()> {
    let (mut first, mut second) = (Standing::new(&client, 0), Standing::new(&client, 1));
    let term = first.leads(SOON).await.context("the low ordinal takes an empty Lease first")?;
    ensure!(!second.leadership.borrow().term().is_some_and(Term::is_valid), "two lead");

    let lease = plane.get(&["lease", &format!("{RELEASE}-leader")])?;
    ensure!(lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with("lease-0_")), "{lease}");
    ensure!(lease["spec"]["leaseDurationSeconds"] == 30 && lease["spec"]["leaseTransitions"] == 1, "{lease}");
    ensure!(lease["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm", "Helm's labels are gone: {lease}");

    // A person sets a label: the version moves on, and the leader goes on leading.
    plane.kubectl(&["label", "lease", &format!("{RELEASE}-leader"), "seen=yes"])?;
    tokio::time::sleep(TIMING.retry_period * 4).await;
    ensure!(term.is_valid(), "a label ended the term");
    ensure!(plane.get(&["lease", &format!("{RELEASE}-leader")])?["metadata"]["labels"]["seen"] == "yes", "the label is gone");

    let (scale, timer) = (KubernetesScale::new(client.clone(), &place(0)), SystemTimer::default());
    let before = scale.read(Duration::from_secs(5)).await?;
    ensure!(before.replicas == 1, "{before:?}");
    let done = resize(&scale, &term, &timer, 1, 3).await;
    ensure!(done == Resized::Done { from: 1, to: 3 }, "{done:?}");
    let late = scale.write(&before.version, 7, Duration::from_secs(5)).await;
    ensure!(late == Err(StoreError::Conflict), "a write with the version of before: {late:?}");
    plane.kubectl(&["scale", "statefulset", RELEASE, "--replicas=2"])?;
    let moved = resize(&scale, &term, &timer, 3, 5).await;
    ensure!(moved == Resized::Moved { found: 2 }, "{moved:?}");
    ensure!(resize(&scale, &term, &timer, 2, 2).await == Resized::Unchanged, "equal numbers");

    first.stop().await?;
    let holder = plane.get(&["lease", &format!("{RELEASE}-leader")])?["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    ensure!(!holder.starts_with("lease-0_"), "the Lease was not released: {holder} holds it");
    ensure!(resize(&scale, &term, &timer, 2, 5).await == Resized::NotLeader, "a stopped leader resizes");
    let next = second.leads(SOON).await.context("the other takes over")?;
    ensure!(next.number() > term.number(), "{next:?} after {term:?}");

    plane.kubectl(&["delete", "lease", &format!("{RELEASE}-leader")])?;
    let trouble =
        |now: &Leadership| matches!(now, Leadership::Follower { trouble: Some(words), .. } if words.contains("the chart ships it"));
    tokio::time::timeout(SOON, second.leadership.wait_for(trouble)).await.context("a missing Lease is said")??;
    ensure!(!next.is_valid(), "without a Lease it leads on");
    second.stop().await
}

fn place(ordinal: u32) -> Place {
    Place {
        pod: format!("{RELEASE}-{ordinal}"),
        namespace: "default".to_owned(),
        stateful_set: RELEASE.to_owned(),
        lease: format!("{RELEASE}-leader"),
    }
}

/// A candidate that runs.
struct Standing {
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Standing {
    fn new(client: &kube::Client, ordinal: u32) -> Self {
        let place = place(ordinal);
        let candidate = Candidate { name: place.pod.clone(), ordinal, incarnation: u64::from(ordinal) + 1 };
        let store = KubernetesLease::new(client.clone(), &place);
        let (elector, leadership) = Elector::new(store, Arc::new(SystemTimer::default()), TIMING, &candidate);
        let stop = CancellationToken::new();
        let task = tokio::spawn(elector.run(stop.clone()));
        Self { leadership, stop, task }
    }

    async fn leads(&mut self, within: Duration) -> anyhow::Result<Term> {
        let leading = tokio::time::timeout(within, self.leadership.wait_for(|now| now.term().is_some())).await??;
        leading.term().cloned().context("it leads")
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}
