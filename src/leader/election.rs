//! The election that a worker's `[scaling] mode` asks for, as one thing to start and to stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::elector::{Candidate, Elector};
use super::kubernetes::{self, KubernetesError, KubernetesLease, KubernetesScale, Place};
use super::lease::Timing;
use super::local::{FileLock, LockError, ReplicasFile};
use super::replicas::Replicas;
use super::sizing::Sizing;
use super::term::{Leadership, Term, Until};
use super::timer::Timer;
use crate::config::{ScalingConfig, ScalingMode};

/// How often a lock on a file is tried.
const LOCK_PERIOD: Duration = Duration::from_millis(500);

/// Why there is no election.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// Kubernetes cannot be used.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// The lock file cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// `mode = "local"` without its two files, which the configuration's rules refuse.
    #[error("mode = \"local\" needs lock_file and replicas_file")]
    LocalFiles,
}

/// A running election.
pub struct Election {
    /// Whether this worker leads.
    pub leadership: watch::Receiver<Leadership>,
    /// What becomes of a leader's decisions.
    pub sizing: Sizing,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Election {
    /// Starts what `scaling.mode` asks for; `None` for `off`. `name`: this worker's, as it reports itself.
    ///
    /// `observe` elects by the Lease where the pod has the four variables of [`Place`]; elsewhere the first of the live workers speaks for all.
    ///
    /// # Errors
    /// What is needed is not there: see [`ElectionError`]. An API server that is away is no error here; the election goes on trying.
    pub async fn start(scaling: &ScalingConfig, name: &str, timer: Arc<dyn Timer>) -> Result<Option<Self>, ElectionError> {
        let environment = || Place::from_environment(|name| std::env::var(name).ok());
        match scaling.mode {
            ScalingMode::Off => Ok(None),
            ScalingMode::Kubernetes => Self::on_kubernetes(environment()?, true, timer).await.map(Some),
            ScalingMode::Observe => match environment() {
                Ok(place) => Self::on_kubernetes(place, false, timer).await.map(Some),
                Err(_) => Ok(Some(Self::alone(timer))),
            },
            ScalingMode::Local => {
                let (Some(lock), Some(replicas)) = (&scaling.lock_file, &scaling.replicas_file) else {
                    return Err(ElectionError::LocalFiles);
                };
                let (lock, leadership) = FileLock::new(lock.clone(), name.to_owned(), LOCK_PERIOD, timer)?;
                let replicas = Arc::new(ReplicasFile::new(replicas.clone()));
                Ok(Some(Self::spawn(leadership, Sizing::Sets(replicas), |stop| tokio::spawn(lock.run(stop)))))
            }
        }
    }

    /// Whether this fleet elects a leader: not with `off`, and not with `observe` outside Kubernetes.
    pub fn is_held(scaling: &ScalingConfig) -> bool {
        match scaling.mode {
            ScalingMode::Off => false,
            ScalingMode::Observe => Place::from_environment(|name| std::env::var(name).ok()).is_ok(),
            ScalingMode::Kubernetes | ScalingMode::Local => true,
        }
    }

    async fn on_kubernetes(place: Place, resizes: bool, timer: Arc<dyn Timer>) -> Result<Self, ElectionError> {
        let client = kubernetes::connect().await?;
        let candidate = Candidate { name: place.pod.clone(), ordinal: place.ordinal(), incarnation: rand::random() };
        let lease = KubernetesLease::new(client.clone(), &place);
        let (elector, leadership) = Elector::new(lease, timer, Timing::default(), &candidate);
        let scale: Arc<dyn Replicas> = Arc::new(KubernetesScale::new(client, &place));
        let sizing = if resizes { Sizing::Sets(scale) } else { Sizing::Says(Some(scale)) };
        Ok(Self::spawn(leadership, sizing, |stop| tokio::spawn(elector.run(stop))))
    }

    fn alone(timer: Arc<dyn Timer>) -> Self {
        let term = Term::new(1, Until::NEVER, Duration::MAX, timer);
        let (_, leadership) = watch::channel(Leadership::Leader(term));
        Self { leadership, sizing: Sizing::Says(None), stop: CancellationToken::new(), task: None }
    }

    fn spawn(leadership: watch::Receiver<Leadership>, sizing: Sizing, start: impl FnOnce(CancellationToken) -> JoinHandle<()>) -> Self {
        let stop = CancellationToken::new();
        let task = start(stop.clone());
        Self { leadership, sizing, stop, task: Some(task) }
    }

    /// Is ready when the election ended by itself, by a panic: why, in words. This worker's term is over then, and nobody stands for it any more.
    pub async fn broken(&mut self) -> String {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await;
        self.task = None;
        let words = ended.err().map_or("it ended", crate::telemetry::panics::join_words);
        format!("the election panicked ({words}), please report it")
    }

    /// Ends this worker's term, if it has one, and lets another lead at once. Stop whatever decides before: a resize that is on its way should
    /// be answered first.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(error = crate::telemetry::panics::join_words(error), "the election panicked");
        }
    }
}

/// Whoever decided is gone, a panic's unwinding included: the lease must not be renewed for nobody.
impl Drop for Election {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lease that is given once; what follows panics.
    struct Breaks(std::sync::atomic::AtomicBool);

    #[async_trait::async_trait]
    impl crate::leader::LeaseStore for Breaks {
        async fn read(&self) -> Result<(crate::leader::LeaseRecord, String), crate::leader::StoreError> {
            Ok((crate::leader::LeaseRecord::default(), "1".to_owned()))
        }
        async fn replace(&self, _: &str, _: &crate::leader::LeaseRecord) -> Result<String, crate::leader::StoreError> {
            if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
                std::panic::panic_any("on purpose");
            }
            Ok("2".to_owned())
        }
    }

    #[tokio::test]
    async fn an_election_that_panics_says_so_and_its_term_is_over() {
        let timing = Timing {
            lease_duration: Duration::from_secs(90),
            renew_deadline: Duration::from_secs(60),
            retry_period: Duration::from_millis(200),
        };
        let candidate = Candidate { name: "a".to_owned(), ordinal: 0, incarnation: 1 };
        let timer = Arc::new(crate::leader::SystemTimer::default());
        let (elector, mut leadership) = Elector::new(Breaks(false.into()), timer, timing, &candidate);
        let mut election = Election::spawn(leadership.clone(), Sizing::Says(None), |stop| tokio::spawn(elector.run(stop)));
        let term = leadership.wait_for(|now| now.term().is_some()).await.ok().and_then(|now| now.term().cloned());
        let why = tokio::time::timeout(Duration::from_secs(10), election.broken()).await;
        assert!(why.is_ok_and(|why| why.contains("on purpose")));
        assert!(term.is_some_and(|term| !term.is_valid()), "another leads long before the minute is over");
    }

    #[tokio::test]
    async fn an_election_that_is_dropped_stops_standing() {
        let (_publish, leadership) = watch::channel(Leadership::unknown());
        let (said, stopped) = tokio::sync::oneshot::channel();
        let election = Election::spawn(leadership, Sizing::Says(None), |stop| {
            tokio::spawn(async move {
                stop.cancelled().await;
                let _ = said.send(());
            })
        });
        drop(election);
        assert!(tokio::time::timeout(Duration::from_secs(5), stopped).await.is_ok_and(|said| said.is_ok()));
    }
}
