//! Time, machines and tasks: a deterministic executor that polls futures in the seed's order, under clocks that move only when all wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// When the world begins, microseconds since the epoch.
pub const EPOCH_US: i64 = 1_790_000_000_000_000;
/// More polls than this while no time passes are a loop without end.
const POLLS_MAX: u64 = 100_000;

/// A machine's number.
pub type MachineId = usize;
type Action = Box<dyn FnOnce(&World) + Send>;

/// Everything that is shared by the machines, and the true time that none of them knows.
#[derive(Clone)]
pub struct World {
    inner: Arc<Mutex<Inner>>,
    /// The true time once more: nothing is asked for more often.
    now_ns: Arc<AtomicU64>,
}

struct Inner {
    now: Duration,
    random: ChaCha8Rng,
    events: BinaryHeap<Reverse<Event>>,
    sequence: u64,
    machines: Vec<Machine>,
    tasks: Vec<Option<Task>>,
    free: Vec<usize>,
    new_tasks: Vec<Task>,
    spawned: u64,
    woken: Arc<Mutex<Vec<Woken>>>,
    /// Woken and not chosen yet, perhaps since their machine stands still.
    ready: Vec<Woken>,
    pauses: Pauses,
    trace: Option<Vec<String>>,
    /// Polls since the time moved last.
    polls: u64,
}

/// How often a machine stops where a task could go on, and for how long at most.
#[derive(Clone, Copy, Default)]
pub struct Pauses {
    /// At any await.
    pub anywhere: f64,
    /// Right before a request leaves.
    pub before_request: f64,
    /// Right before the scale is written: after the recheck.
    pub before_resize: f64,
    /// The longest.
    pub longest: Duration,
}

#[derive(Default)]
struct Machine {
    /// Seconds of its clocks in a true second.
    rate: f64,
    wall_offset_us: i64,
    frozen_until: Duration,
    /// True time that its monotonic clock missed, and the suspension that goes on.
    missed: Duration,
    suspended_from: Option<Duration>,
    /// Its process was killed: nothing of it runs any more.
    dead: bool,
}

struct Task {
    machine: MachineId,
    future: BoxFuture<'static, ()>,
    ready: Arc<Ready>,
}

/// A task that was woken: its slot, and its number, which no other task ever has.
type Woken = (usize, u64);

struct Ready {
    woken: AtomicBool,
    slot: AtomicUsize,
    number: u64,
    list: Arc<Mutex<Vec<Woken>>>,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            self.list.lock().push((self.slot.load(Ordering::Relaxed), self.number));
        }
    }
}

struct Event {
    at: Duration,
    sequence: u64,
    action: Action,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl World {
    /// A world of this seed; `traced` keeps a line for each thing that happens.
    pub fn new(seed: u64, traced: bool) -> Self {
        let inner = Inner {
            now: Duration::ZERO,
            random: ChaCha8Rng::seed_from_u64(seed),
            events: BinaryHeap::new(),
            sequence: 0,
            machines: Vec::new(),
            tasks: Vec::new(),
            free: Vec::new(),
            new_tasks: Vec::new(),
            spawned: 0,
            woken: Arc::default(),
            ready: Vec::new(),
            pauses: Pauses::default(),
            trace: traced.then(Vec::new),
            polls: 0,
        };
        Self { inner: Arc::new(Mutex::new(inner)), now_ns: Arc::default() }
    }

    /// A machine whose clocks run at `rate` and whose wall clock is wrong by `wall_offset_us`.
    pub fn machine(&self, rate: f64, wall_offset_us: i64) -> MachineId {
        let mut inner = self.inner.lock();
        inner.machines.push(Machine { rate, wall_offset_us, ..Machine::default() });
        inner.machines.len() - 1
    }

    /// Sets how often machines stop.
    pub fn set_pauses(&self, pauses: Pauses) {
        self.inner.lock().pauses = pauses;
    }

    /// Whether tasks wake each other for ever while no time passes.
    pub fn is_spinning(&self) -> bool {
        self.inner.lock().polls > POLLS_MAX
    }

    /// The true time.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ns.load(Ordering::Relaxed))
    }

    fn set_now(&self, inner: &mut Inner, now: Duration) {
        inner.now = now;
        self.now_ns.store(now.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Something drawn from the seed.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut ChaCha8Rng) -> T) -> T {
        draw(&mut self.inner.lock().random)
    }

    /// A time of up to `longest`, short ones as likely as long ones.
    pub fn draw_span(&self, longest: Duration) -> Duration {
        self.draw(|random| longest.mul_f64(random.random_range(0.0..1.0)))
    }

    /// One line of the trace, made only when there is one.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut inner = self.inner.lock();
        let now = inner.now.as_secs_f64();
        if let Some(trace) = &mut inner.trace {
            trace.push(format!("{now:10.4} {}", line()));
        }
    }

    /// The trace so far.
    pub fn trace(&self) -> Vec<String> {
        self.inner.lock().trace.clone().unwrap_or_default()
    }

    /// Lets something happen after `span` of true time, on no machine.
    pub fn after(&self, span: Duration, action: impl FnOnce(&World) + Send + 'static) {
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        let event = Event { at: inner.now + span, sequence: inner.sequence, action: Box::new(action) };
        inner.events.push(Reverse(event));
    }

    /// Starts a task on a machine.
    pub fn spawn(&self, machine: MachineId, future: impl Future<Output = ()> + Send + 'static) {
        let mut inner = self.inner.lock();
        if inner.machines[machine].dead {
            return drop(inner); // before the future, whose destructor may ask the world something
        }
        inner.spawned += 1;
        let list = inner.woken.clone();
        let ready = Ready { woken: AtomicBool::new(false), slot: AtomicUsize::new(0), number: inner.spawned, list };
        inner.new_tasks.push(Task { machine, future: Box::pin(future), ready: Arc::new(ready) });
    }

    /// Ends a machine for good: its process was killed, and whatever starts again is another machine.
    pub fn destroy(&self, machine: MachineId) {
        self.inner.lock().machines[machine].dead = true;
        self.kill(machine);
    }

    /// Time that passes on no machine.
    pub fn pass(&self, span: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (over, passed) = tokio::sync::oneshot::channel();
        // Whoever waited may be gone.
        self.after(span, move |_| over.send(()).unwrap_or_default());
        async move { passed.await.unwrap_or_default() }
    }

    /// Ends all tasks of a machine where they stand: its process was killed.
    pub fn kill(&self, machine: MachineId) {
        let mut inner = self.inner.lock();
        let mut dead: Vec<Task> = Vec::new();
        let (gone, stay) = std::mem::take(&mut inner.new_tasks).into_iter().partition(|task| task.machine == machine);
        inner.new_tasks = stay;
        dead.extend::<Vec<Task>>(gone);
        for slot in 0..inner.tasks.len() {
            if inner.tasks[slot].as_ref().is_some_and(|task| task.machine == machine) {
                dead.extend(inner.tasks[slot].take());
                inner.free.push(slot);
            }
        }
        drop(inner); // their destructors may ask the world something
        drop(dead);
    }

    /// Stops a machine: SIGSTOP. Its clocks go on.
    pub fn freeze(&self, machine: MachineId, span: Duration) {
        let mut inner = self.inner.lock();
        let until = inner.now + span;
        let machine = &mut inner.machines[machine];
        machine.frozen_until = machine.frozen_until.max(until);
        drop(inner);
        self.after(span, |_| {});
    }

    /// Suspends a machine: its monotonic clock stands still, its wall clock does not.
    pub fn suspend(&self, machine: MachineId, span: Duration) {
        {
            let mut inner = self.inner.lock();
            let now = inner.now;
            if inner.machines[machine].suspended_from.is_some() {
                return;
            }
            inner.machines[machine].suspended_from = Some(now);
        }
        self.freeze(machine, span);
        self.after(span, move |world| {
            let mut inner = world.inner.lock();
            let now = inner.now;
            let machine = &mut inner.machines[machine];
            if let Some(from) = machine.suspended_from.take() {
                machine.missed += now - from;
            }
        });
    }

    /// A point at which others may run, and at which the machine may stop, right before a request leaves.
    pub async fn before_request(&self, machine: MachineId, writes_scale: bool) {
        let pauses = self.inner.lock().pauses;
        if self.draw(|random| random.random_bool(if writes_scale { pauses.before_resize } else { pauses.before_request })) {
            let span = self.draw_span(pauses.longest);
            self.note(|| format!("machine {machine} stops for {span:?} right before a request leaves"));
            self.freeze(machine, span);
        }
        let mut yielded = false;
        poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Runs until the true time is `until`; `check` looks after each step of a task.
    pub fn run(&self, until: Duration, mut check: impl FnMut(&World)) {
        loop {
            if let Some((index, mut task)) = self.choose() {
                task.ready.woken.store(false, Ordering::Relaxed);
                let waker = Waker::from(Arc::clone(&task.ready));
                let done = Pin::new(&mut task.future).poll(&mut Context::from_waker(&waker)).is_ready();
                let spins = {
                    let mut inner = self.inner.lock();
                    inner.polls += 1;
                    if done || inner.machines[task.machine].dead {
                        inner.free.push(index);
                        drop(inner);
                        drop(task); // its destructor may ask the world something
                        false
                    } else {
                        inner.tasks[index] = Some(task);
                        inner.polls > POLLS_MAX
                    }
                };
                check(self);
                if spins {
                    return;
                }
                continue;
            }
            let action = {
                let mut inner = self.inner.lock();
                match inner.events.peek() {
                    Some(Reverse(event)) if event.at <= until => {}
                    _ => {
                        self.set_now(&mut inner, until);
                        return;
                    }
                }
                let Some(Reverse(event)) = inner.events.pop() else { return };
                if inner.now < event.at {
                    inner.polls = 0;
                }
                self.set_now(&mut inner, event.at);
                event.action
            };
            action(self);
        }
    }

    /// Takes out the task that the seed lets run next; a machine may stop instead.
    fn choose(&self) -> Option<(usize, Task)> {
        loop {
            let mut inner = self.inner.lock();
            while let Some(new) = inner.new_tasks.pop() {
                let slot = inner.free.pop().unwrap_or(inner.tasks.len());
                new.ready.slot.store(slot, Ordering::Relaxed);
                new.ready.wake_by_ref();
                match inner.tasks.get_mut(slot) {
                    Some(free) => *free = Some(new),
                    None => inner.tasks.push(Some(new)),
                }
            }
            let woken = std::mem::take(&mut *inner.woken.lock());
            inner.ready.extend(woken);
            let Inner { ready, tasks, machines, now, random, .. } = &mut *inner;
            ready.retain(|(slot, number)| tasks[*slot].as_ref().is_some_and(|task| task.ready.number == *number));
            let runs = |(slot, _): &Woken| tasks[*slot].as_ref().is_some_and(|task| machines[task.machine].frozen_until <= *now);
            let count = ready.iter().filter(|woken| runs(woken)).count();
            let nth = match count {
                0 => return None,
                1 => 0,
                several => random.random_range(0..several),
            };
            let place = ready.iter().enumerate().filter(|(_, woken)| runs(woken)).nth(nth).map(|(place, _)| place)?;
            let index = ready[place].0;
            let pauses = inner.pauses;
            if inner.random.random_bool(pauses.anywhere) {
                let machine = inner.tasks[index].as_ref()?.machine;
                drop(inner);
                let span = self.draw_span(pauses.longest);
                self.note(|| format!("machine {machine} stops for {span:?}"));
                self.freeze(machine, span);
                continue;
            }
            inner.ready.swap_remove(place);
            return inner.tasks[index].take().map(|task| (index, task));
        }
    }

    /// A machine's monotonic time, its wall clock, and how fast they run.
    pub fn local(&self, machine: MachineId) -> (Duration, i64, f64) {
        let inner = self.inner.lock();
        let (now, machine) = (inner.now, &inner.machines[machine]);
        let missed = machine.missed + machine.suspended_from.map_or(Duration::ZERO, |from| now - from);
        let passed = |span: Duration| if machine.rate == 1.0 { span } else { span.mul_f64(machine.rate) };
        let monotonic = passed(now - missed);
        let wall = EPOCH_US + machine.wall_offset_us + i64::try_from(passed(now).as_micros()).unwrap();
        (monotonic, wall, machine.rate)
    }
}
