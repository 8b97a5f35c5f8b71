//! An API server with one Lease and one scale, and the network between it and the workers: requests and answers are late or lost, each on
//! its own, and a request that its sender gave up may still arrive.

use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use millrace::leader::{LeaseRecord, LeaseStore, Replicas, Scale, StoreError};
use parking_lot::Mutex;
use rand::Rng;

use super::oracle::{Landed, Oracle};
use super::run::Mutant;
use crate::world::{MachineId, World};

/// How long a request may be on its way after its sender gave it up.
const LATEST: Duration = Duration::from_secs(25);

/// What the server keeps.
pub struct Server {
    lease: LeaseRecord,
    lease_version: u64,
    /// Workers asked for.
    pub replicas: u32,
    scale_version: u64,
    mutant: Mutant,
    /// Who watches.
    pub oracle: Oracle,
}

/// How the network is now.
#[derive(Default)]
pub struct Network {
    /// The server is away until then.
    pub server_down_until: Duration,
    /// The server is slow until then.
    pub server_slow_until: Duration,
    /// For each machine: cut off until then.
    pub cut_until: Vec<Duration>,
    /// For each machine: slow until then.
    pub slow_until: Vec<Duration>,
}

/// The server and the network.
#[derive(Clone)]
pub struct Api {
    /// The world it is in.
    pub world: World,
    /// The server.
    pub server: Arc<Mutex<Server>>,
    /// The network.
    pub network: Arc<Mutex<Network>>,
}

impl Api {
    /// With an empty Lease, as the chart ships it, and one worker asked for.
    pub fn new(world: &World, machines: usize, mutant: Mutant) -> Self {
        let server =
            Server { lease: LeaseRecord::default(), lease_version: 1, replicas: 1, scale_version: 1, mutant, oracle: Oracle::default() };
        let network =
            Network { cut_until: vec![Duration::ZERO; machines], slow_until: vec![Duration::ZERO; machines], ..Network::default() };
        Self { world: world.clone(), server: Arc::new(Mutex::new(server)), network: Arc::new(Mutex::new(network)) }
    }

    /// Somebody sets the scale by hand.
    pub fn set_by_hand(&self, replicas: u32) {
        let mut server = self.server.lock();
        server.replicas = replicas;
        server.scale_version += 1;
        server.oracle.by_hand();
    }

    /// How long one way takes; `None`: lost.
    fn way(&self, machine: MachineId) -> Option<Duration> {
        let now = self.world.now();
        let network = self.network.lock();
        let cut = network.cut_until[machine].saturating_sub(now);
        let slow = network.slow_until[machine].max(network.server_slow_until) > now;
        self.world.draw(|random| {
            if !cut.is_zero() {
                // TCP delivers after the cut what it can; or the connection is gone.
                return random.random_bool(0.5).then(|| cut + LATEST.mul_f64(random.random_range(0.0..0.3)));
            }
            if slow {
                return (!random.random_bool(0.1)).then(|| LATEST.mul_f64(random.random_range(0.0..1.0_f64).powi(3)));
            }
            Some(Duration::from_micros(random.random_range(200..20_000)))
        })
    }

    /// Sends a request from a machine; waits for the answer as long as it takes, for ever when it is lost.
    async fn call<T: Send + 'static>(
        &self,
        machine: MachineId,
        resizes: bool,
        request: impl FnOnce(&mut Server, &World) -> T + Send + 'static,
    ) -> Result<T, ()> {
        self.world.before_request(machine, resizes).await;
        let answer = Answer::default();
        if let Some(there) = self.way(machine) {
            let (api, arrives) = (self.clone(), answer.clone());
            self.world.after(there, move |world| {
                let down = api.network.lock().server_down_until > world.now();
                // A server that goes away may do so after it wrote and before it answered; one that is away refuses the connection.
                let outcome = if down { Err(()) } else { Ok(request(&mut api.server.lock(), world)) };
                if let Some(back) = api.way(machine) {
                    world.after(back, move |_| arrives.put(outcome));
                }
            });
        }
        answer.wait().await
    }
}

/// An answer that has arrived, and who waits for it.
type Cell<T> = (Option<Result<T, ()>>, Option<Waker>);

struct Answer<T>(Arc<Mutex<Cell<T>>>);

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Answer<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((None, None))))
    }
}

impl<T> Answer<T> {
    fn put(&self, outcome: Result<T, ()>) {
        let mut cell = self.0.lock();
        cell.0 = Some(outcome);
        if let Some(waker) = cell.1.take() {
            waker.wake();
        }
    }

    async fn wait(self) -> Result<T, ()> {
        std::future::poll_fn(|context| {
            let mut cell = self.0.lock();
            match cell.0.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    cell.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

/// A worker's way to the Lease.
pub struct LeaseClient {
    /// The server and the network.
    pub api: Api,
    /// The worker's machine.
    pub machine: MachineId,
    /// Its clock, for the mutant that believes in clocks.
    pub wall: Arc<dyn Fn() -> i64 + Send + Sync>,
}

fn unanswered() -> StoreError {
    StoreError::Unanswered("the API server is away".to_owned())
}

#[async_trait]
impl LeaseStore for LeaseClient {
    async fn read(&self) -> Result<(LeaseRecord, String), StoreError> {
        let read = self.api.call(self.machine, false, |server, _| (server.lease.clone(), server.lease_version.to_string(), server.mutant));
        let (mut record, version, mutant) = read.await.map_err(|()| unanswered())?;
        let expires = record.renewed_us.unwrap_or(0) + 15_000_000;
        if matches!(mutant, Mutant::TrustsTimestamps) && (self.wall)() > expires {
            record.holder.clear();
        }
        Ok((record, version))
    }

    async fn replace(&self, version: &str, record: &LeaseRecord) -> Result<String, StoreError> {
        let (version, record, machine) = (version.to_owned(), record.clone(), self.machine);
        let write = self.api.call(self.machine, false, move |server, world| {
            if server.lease_version.to_string() != version && !matches!(server.mutant, Mutant::LeaseWithoutVersion) {
                return Err(StoreError::Conflict);
            }
            if server.lease.transitions != record.transitions || server.lease.holder != record.holder {
                world.note(|| {
                    format!(
                        "the lease goes from machine {machine}'s view {:?} to {:?} {}",
                        server.lease.holder, record.holder, record.transitions
                    )
                });
                server.oracle.lease_taken(record.transitions, record.holder.is_empty());
            }
            server.lease = record;
            server.lease_version += 1;
            Ok(server.lease_version.to_string())
        });
        write.await.map_err(|()| unanswered())?
    }
}

/// A worker's way to the scale, for one decision.
pub struct ScaleClient {
    /// The server and the network.
    pub api: Api,
    /// The worker's machine.
    pub machine: MachineId,
    /// The term that the decision was made in.
    pub term: u64,
    /// The decision's number, in the order in which decisions were made.
    pub decision: u64,
}

fn away() -> StoreError {
    StoreError::Unanswered("the API server is away".to_owned())
}

#[async_trait]
impl Replicas for ScaleClient {
    async fn read(&self, _: Duration) -> Result<Scale, StoreError> {
        let read = self.api.call(self.machine, false, |server, _| Scale {
            replicas: server.replicas,
            existing: None,
            version: server.scale_version.to_string(),
        });
        read.await.map_err(|()| away())
    }

    async fn write(&self, version: &str, replicas: u32, _: Duration) -> Result<(), StoreError> {
        let (version, api, term, decision) = (version.to_owned(), self.api.clone(), self.term, self.decision);
        let write = self.api.call(self.machine, true, move |server, world| {
            let refused = server.scale_version.to_string() != version;
            world.note(|| format!("scale {} to {replicas}, decision {decision} of term {term}, refused: {refused}", server.replicas));
            if refused && !matches!(server.mutant, Mutant::ScaleWithoutVersion) {
                server.oracle.refused(term);
                return Err(StoreError::Conflict);
            }
            server.replicas = replicas;
            server.scale_version += 1;
            server.oracle.landed(Landed { term, decision, replicas });
            // The pods come and go, and each moves the version on.
            for _ in 0..world.draw(|random| random.random_range(0..4)) {
                let api = api.clone();
                world.after(world.draw_span(Duration::from_secs(8)), move |_| api.server.lock().scale_version += 1);
            }
            Ok(())
        });
        write.await.map_err(|()| away())?
    }
}
