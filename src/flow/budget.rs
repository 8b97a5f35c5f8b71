//! The memory budget of a worker: one count for each kind of memory, one limit for their sum.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Thread, ThreadId};

use parking_lot::Mutex;

/// What memory is held for. Each kind has its own metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BudgetKind {
    /// Records that librdkafka has fetched and nobody has taken.
    Prefetch,
    /// Rows in buffers that still fill.
    OpenBuffers,
    /// Rows that were handed to an append and are not acknowledged.
    InFlight,
    /// Copies of records on their way to the dead-letter topic.
    DeadLetters,
    /// Compiled plans, their schemas and layouts.
    Plans,
    /// Resident memory that no other kind explains: librdkafka beyond its share (it keeps at least one whole batch of each partition), what
    /// allocators hold back. Measured, not counted.
    Unaccounted,
}

impl BudgetKind {
    /// Every kind, in the order of [`BudgetKind::as_str`]'s table.
    pub const ALL: [Self; 6] = [Self::Prefetch, Self::OpenBuffers, Self::InFlight, Self::DeadLetters, Self::Plans, Self::Unaccounted];

    /// The name in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prefetch => "prefetch",
            Self::OpenBuffers => "open_buffers",
            Self::InFlight => "in_flight",
            Self::DeadLetters => "dead_letters",
            Self::Plans => "plans",
            Self::Unaccounted => "unaccounted",
        }
    }
}

/// How much of the memory that the user allowed is in use.
///
/// **Promise (memory has a limit)**: whoever holds memory that grows with the input counts it here before he takes more, and takes no more
/// while [`Budget::over_limit`]. The limit is soft by the size of one decoded row a shard: a record that was handed over is never refused.
///
/// Counting is an atomic addition, so it may happen per buffer growth on the hot path (not per record).
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used: AtomicU64,
    by_kind: [AtomicU64; BudgetKind::ALL.len()],
    /// As last observed; 0 before.
    resident: AtomicU64,
    waiting: Mutex<Vec<Thread>>,
}

/// What the whole process holds, beside the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessMemory {
    /// Well below the limit.
    Roomy,
    /// Near the limit.
    Full,
    /// At the limit: what can be given back is to be given back.
    Crowded,
}

/// What a worker takes before it holds a record: program, threads' stacks, connections. Resident memory above the counted kinds and this is
/// [`BudgetKind::Unaccounted`].
const BASE_BYTES: u64 = 48 << 20;
/// The share of the limit that rows may always use, however much is unaccounted for: a worker that may take nothing would never get better.
const ROWS_SHARE_MIN: u64 = 4;
/// From this share of the limit on, the largest or oldest open buffers are closed at once: 80 %.
const PRESSURE_PERCENT: u64 = 80;
/// Up to this share of the limit the process is [`ProcessMemory::Roomy`]: 70 %.
const ROOMY_PERCENT: u64 = 70;
/// From this share on it is [`ProcessMemory::Crowded`]: 90 %, for more is on its way.
const CROWDED_PERCENT: u64 = 90;

impl Budget {
    /// A budget of `limit_bytes`, all free.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used: AtomicU64::new(0),
            by_kind: Default::default(),
            resident: AtomicU64::new(0),
            waiting: Mutex::new(Vec::new()),
        })
    }

    /// The limit in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Counts `bytes` more of this kind. Never refuses: ask [`Budget::over_limit`] before taking more input.
    pub fn add(&self, kind: BudgetKind, bytes: u64) {
        self.by_kind[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back `bytes` of this kind; wakes those who wait when the sum falls below the limit by it.
    ///
    /// Giving back more than was counted is a bug of the caller; the count stops at zero rather than going round.
    pub fn sub(&self, kind: BudgetKind, bytes: u64) {
        let given = take_down(&self.by_kind[kind as usize], bytes);
        debug_assert_eq!(given, bytes, "more {} given back than was counted", kind.as_str());
        let before = self.used.fetch_sub(given, Ordering::AcqRel);
        if before >= self.limit_bytes && before - given < self.limit_bytes {
            self.wake();
        }
    }

    /// Takes in what the whole process holds, as the system sees it (`resident_bytes`), so that the limit holds for the process and not for the
    /// counted part of it alone. Called a few times a second.
    pub fn observe_resident(&self, resident_bytes: u64) {
        self.resident.store(resident_bytes, Ordering::Relaxed);
        let booked = self.used_by(BudgetKind::Unaccounted);
        let counted = self.used().saturating_sub(booked);
        let most = self.limit_bytes.saturating_sub(self.used_by(BudgetKind::Prefetch)).saturating_sub(self.limit_bytes / ROWS_SHARE_MIN);
        let unaccounted = resident_bytes.saturating_sub(counted).saturating_sub(BASE_BYTES).min(most);
        if unaccounted > booked {
            self.add(BudgetKind::Unaccounted, unaccounted - booked);
        } else {
            self.sub(BudgetKind::Unaccounted, booked - unaccounted);
        }
    }

    /// What the process holds, as last observed.
    pub fn process_memory(&self) -> ProcessMemory {
        match self.resident.load(Ordering::Relaxed) {
            resident if resident > self.limit_bytes / 100 * CROWDED_PERCENT => ProcessMemory::Crowded,
            resident if resident > self.limit_bytes / 100 * ROOMY_PERCENT => ProcessMemory::Full,
            _ => ProcessMemory::Roomy,
        }
    }

    /// Moves `bytes` from one kind to another; the sum stays.
    pub fn transfer(&self, from: BudgetKind, to: BudgetKind, bytes: u64) {
        let moved = take_down(&self.by_kind[from as usize], bytes);
        debug_assert_eq!(moved, bytes, "more {} moved than was counted", from.as_str());
        self.by_kind[to as usize].fetch_add(moved, Ordering::Relaxed);
    }

    /// All bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The bytes in use for one kind.
    pub fn used_by(&self, kind: BudgetKind) -> u64 {
        self.by_kind[kind as usize].load(Ordering::Relaxed)
    }

    /// Whether the limit is reached: take no more input.
    pub fn over_limit(&self) -> bool {
        self.used() >= self.limit_bytes
    }

    /// Whether at least 80 % are in use: close the largest or oldest open buffers.
    pub fn pressure(&self) -> bool {
        u128::from(self.used()) * 100 >= u128::from(self.limit_bytes) * u128::from(PRESSURE_PERCENT)
    }

    /// Has `thread` unparked whenever the sum falls below the limit, until the waiter is dropped.
    pub fn unpark_below_limit(self: &Arc<Self>, thread: Thread) -> Waiter {
        let waiter = Waiter { budget: Arc::clone(self), thread: thread.id() };
        self.waiting.lock().push(thread);
        waiter
    }

    /// Counts `bytes` of this kind until the lease is dropped.
    pub fn lease(self: &Arc<Self>, kind: BudgetKind, bytes: u64) -> Lease {
        self.add(kind, bytes);
        Lease { budget: Arc::clone(self), kind, bytes }
    }

    fn wake(&self) {
        for thread in self.waiting.lock().iter() {
            thread.unpark();
        }
    }
}

/// A thread that is told of room, until this is dropped.
#[derive(Debug)]
#[must_use = "the thread is told while this lives"]
pub struct Waiter {
    budget: Arc<Budget>,
    thread: ThreadId,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.budget.waiting.lock().retain(|thread| thread.id() != self.thread);
    }
}

/// Subtracts at most what is there; returns how much that was.
fn take_down(count: &AtomicU64, bytes: u64) -> u64 {
    let before = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(now.saturating_sub(bytes))).unwrap_or_else(|now| now);
    before.min(bytes)
}

/// Bytes of a budget that are given back when this is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    kind: BudgetKind,
    bytes: u64,
}

impl Lease {
    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What they are held for.
    pub fn kind(&self) -> BudgetKind {
        self.kind
    }

    /// Holds `bytes` from now on: more are counted, fewer given back.
    pub fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.budget.add(self.kind, bytes - self.bytes);
        } else {
            self.budget.sub(self.kind, self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// A further lease on the same budget.
    #[must_use]
    pub fn beside(&self, kind: BudgetKind, bytes: u64) -> Self {
        self.budget.lease(kind, bytes)
    }

    /// Splits off `bytes` (at most what it holds) as a lease of its own.
    #[must_use]
    pub fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { budget: Arc::clone(&self.budget), kind: self.kind, bytes }
    }

    /// The same bytes, held for something else: an open buffer that was handed to an append.
    #[must_use]
    pub fn into_kind(mut self, kind: BudgetKind) -> Self {
        self.budget.transfer(self.kind, kind, self.bytes);
        self.kind = kind;
        self
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.sub(self.kind, self.bytes);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn counts_by_kind_and_in_all() {
        let budget = Budget::new(1000);
        budget.add(BudgetKind::Prefetch, 300);
        budget.add(BudgetKind::OpenBuffers, 499);
        assert_eq!((budget.used(), budget.used_by(BudgetKind::Prefetch), budget.used_by(BudgetKind::InFlight)), (799, 300, 0));
        assert!(!budget.pressure() && !budget.over_limit());
        budget.add(BudgetKind::Plans, 1);
        assert!(budget.pressure() && !budget.over_limit());
        budget.add(BudgetKind::DeadLetters, 200);
        assert!(budget.over_limit());
        budget.sub(BudgetKind::DeadLetters, 1);
        assert!(!budget.over_limit());
    }

    #[test]
    fn a_lease_frees_what_is_left_of_it() {
        let budget = Budget::new(1000);
        let mut lease = budget.lease(BudgetKind::OpenBuffers, 100);
        lease.resize(150);
        let part = lease.split(50).into_kind(BudgetKind::InFlight);
        assert_eq!((budget.used_by(BudgetKind::OpenBuffers), budget.used_by(BudgetKind::InFlight), budget.used()), (100, 50, 150));
        lease.resize(20);
        drop(part);
        assert_eq!((budget.used_by(BudgetKind::OpenBuffers), budget.used_by(BudgetKind::InFlight), budget.used()), (20, 0, 20));
        let rest = lease.split(1_000_000);
        assert_eq!((lease.bytes(), rest.bytes()), (0, 20));
        drop((lease, rest));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn each_fall_below_the_limit_unparks_the_waiters() {
        let budget = Budget::new(100);
        let (says, said) = std::sync::mpsc::channel();
        let own = Arc::clone(&budget);
        let waiter = std::thread::spawn(move || {
            let room = own.unpark_below_limit(std::thread::current());
            for _ in 0..3 {
                while !own.over_limit() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                says.send(Duration::ZERO).unwrap();
                let start = Instant::now();
                while own.over_limit() {
                    std::thread::park_timeout(Duration::from_secs(30));
                }
                says.send(start.elapsed()).unwrap();
            }
            drop(room);
        });
        for round in 0..3 {
            let lease = budget.lease(BudgetKind::InFlight, 100);
            said.recv().unwrap();
            std::thread::sleep(Duration::from_millis(20));
            drop(lease);
            let waited = said.recv().unwrap();
            assert!(waited < Duration::from_secs(10), "{waited:?} in round {round}");
        }
        waiter.join().unwrap();
        assert!(budget.waiting.lock().is_empty(), "who has ended is forgotten");
    }

    #[test]
    fn threads_that_count_at_once_end_at_zero() {
        let budget = Budget::new(1 << 40);
        std::thread::scope(|scope| {
            for kind in BudgetKind::ALL {
                let budget = &budget;
                scope.spawn(move || {
                    for bytes in 0..10_000 {
                        drop(budget.lease(kind, bytes).into_kind(BudgetKind::InFlight));
                    }
                });
            }
        });
        assert_eq!((budget.used(), BudgetKind::ALL.map(|kind| budget.used_by(kind))), (0, [0; BudgetKind::ALL.len()]));
    }

    #[test]
    fn what_the_system_sees_counts_but_rows_keep_a_share() {
        let mib: u64 = 1 << 20;
        let budget = Budget::new(256 * mib);
        let _prefetch = budget.lease(BudgetKind::Prefetch, 64 * mib);
        budget.observe_resident(100 * mib);
        assert_eq!(budget.used_by(BudgetKind::Unaccounted), 0, "program and prefetch explain it");
        assert_eq!(budget.process_memory(), ProcessMemory::Roomy);
        let rows = budget.lease(BudgetKind::InFlight, 50 * mib);
        budget.observe_resident(222 * mib);
        assert_eq!(budget.used_by(BudgetKind::Unaccounted), 60 * mib);
        assert_eq!(budget.process_memory(), ProcessMemory::Full);
        budget.observe_resident(900 * mib);
        assert_eq!(budget.process_memory(), ProcessMemory::Crowded);
        assert_eq!(budget.used_by(BudgetKind::Unaccounted), 128 * mib, "a quarter stays for rows");
        assert!(!budget.over_limit());
        budget.observe_resident(170 * mib);
        assert_eq!(budget.used_by(BudgetKind::Unaccounted), 8 * mib);
        drop(rows);
        assert_eq!(budget.used(), 72 * mib);
    }
}
