//! Workers: the product's elector, and a loop that decides and resizes through the product's resize path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use millrace::flow::Clock;
use millrace::leader::{Candidate, Elector, Leadership, Replicas, Resized, StoreError, Term, Timer, Timing, resize, within};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{Api, LeaseClient, ScaleClient};
use super::run::Mutant;
use crate::machine_timer::MachineTimer;
use crate::world::{MachineId, World};

const DECIDE_INTERVAL: Duration = Duration::from_secs(5);

/// What the load asks for now, and how many decisions were made.
#[derive(Default)]
pub struct Load {
    /// Workers that are needed now.
    pub wanted: AtomicU32,
    decisions: AtomicU64,
}

/// One worker process on its machine.
pub struct Worker {
    /// Its name.
    pub name: String,
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
}

impl Worker {
    /// Starts it: another incarnation of the same name each time.
    pub fn start(api: &Api, load: &Arc<Load>, machine: MachineId, incarnation: u64, mutant: Mutant) -> Self {
        let world = &api.world;
        let name = format!("millrace-{machine}");
        let timer = Arc::new(MachineTimer::new(world, machine));
        let wall = Arc::clone(&timer);
        let store = LeaseClient { api: api.clone(), machine, wall: Arc::new(move || wall.now_wall_us()) };
        let candidate = Candidate { name: name.clone(), ordinal: u32::try_from(machine).unwrap(), incarnation };
        let timing = match mutant {
            Mutant::NoMargin => Timing { renew_deadline: Duration::from_millis(14_900), ..Timing::default() },
            _ => Timing::default(),
        };
        let (elector, leadership) = Elector::new(store, timer.clone(), timing, &candidate);
        let stop = CancellationToken::new();
        let manager = Manager { api: api.clone(), load: Arc::clone(load), machine, timer, leadership: leadership.clone(), mutant };
        let (stopped, decides) = (stop.clone(), CancellationToken::new());
        let ended = decides.clone();
        world.spawn(machine, async move {
            manager.run(&stopped).await;
            ended.cancel(); // the election stops after whoever decides, as the supervisor does it
        });
        world.spawn(machine, elector.run(decides));
        Self { name, leadership, stop }
    }

    /// SIGTERM.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether a term began or ended since this was last asked: only then can one more believe that it leads.
    pub fn changed(&mut self) -> bool {
        let changed = self.leadership.has_changed().unwrap_or(false);
        if changed {
            self.leadership.mark_unchanged();
        }
        changed
    }

    /// Whether it may act as leader, by its own clock.
    pub fn believes(&self) -> bool {
        self.leadership.borrow().term().is_some_and(Term::is_valid)
    }
}

struct Manager {
    api: Api,
    load: Arc<Load>,
    machine: MachineId,
    timer: Arc<MachineTimer>,
    leadership: watch::Receiver<Leadership>,
    mutant: Mutant,
}

impl Manager {
    async fn run(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let term = self.leadership.borrow_and_update().term().cloned();
            let pause = match term {
                Some(term) => {
                    self.decide(&term).await;
                    DECIDE_INTERVAL
                }
                None => Duration::from_secs(3600),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                changed = self.leadership.changed() => if changed.is_err() { return },
                () = self.timer.sleep(pause) => {}
            }
        }
    }

    async fn decide(&self, term: &Term) {
        let decision = self.load.decisions.fetch_add(1, Ordering::Relaxed) + 1;
        let to = self.load.wanted.load(Ordering::Relaxed);
        let scale = ScaleClient { api: self.api.clone(), machine: self.machine, term: term.number(), decision };
        let timeout = term.write_timeout();
        let Some(Ok(before)) = within(&*self.timer, timeout, scale.read(timeout)).await else { return };
        let outcome = match self.mutant {
            Mutant::NoRecheck => resize_without_recheck(&scale, &*self.timer, timeout, to).await,
            _ => resize(&scale, term, &*self.timer, before.replicas, to).await,
        };
        self.api.world.note(|| format!("machine {}: decision {decision} of term {}: {to}: {outcome:?}", self.machine, term.number()));
        self.api.server.lock().oracle.resized(decision, to, &outcome);
    }
}

/// A mutant: the resize path as it would be without its recheck.
async fn resize_without_recheck(replicas: &dyn Replicas, timer: &dyn Timer, timeout: Duration, to: u32) -> Resized {
    let away = || Resized::Failed(StoreError::Unanswered(String::new()));
    let Some(Ok(scale)) = within(timer, timeout, replicas.read(timeout)).await else { return away() };
    match within(timer, timeout, replicas.write(&scale.version, to, timeout)).await {
        Some(Ok(())) => Resized::Done { from: scale.replicas, to },
        _ => away(),
    }
}

/// How many believe that they lead.
pub fn believers(workers: &[Option<Worker>]) -> Vec<String> {
    workers.iter().flatten().filter(|worker| worker.believes()).map(|worker| worker.name.clone()).collect()
}

/// Lets the load change again and again until `end`.
pub fn vary_load(world: &World, load: &Arc<Load>, end: Duration) {
    let load = Arc::clone(load);
    world.after(Duration::from_secs(3) + world.draw_span(Duration::from_secs(12)), move |world| {
        if world.now() < end {
            let wanted = world.draw(|random| rand::Rng::random_range(random, 1..12));
            world.note(|| format!("the load asks for {wanted}"));
            load.wanted.store(wanted, Ordering::Relaxed);
            vary_load(world, &load, end);
        }
    });
}
