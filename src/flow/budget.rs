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
/// **Promise (nothing stands still for want of memory)**: rows always have a quarter of the limit, whatever the other kinds use. Rows go by
/// themselves, to the sink; plans that are in use do not, and a worker that may take nothing would never get better.
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
/// The share of the limit that rows (in open buffers, in flight, as dead letters) may always use.
const ROWS_SHARE_MIN: u64 = 4;
/// The share of the limit beyond which plans that are not used are dropped.
const PLANS_SHARE: u64 = 4;
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

    /// Gives back `bytes` of this kind; wakes those who wait when that lets them take input again.
    ///
    /// Giving back more than was counted is a bug of the caller; the count stops at zero rather than going round.
    pub fn sub(&self, kind: BudgetKind, bytes: u64) {
        let was_over = self.over_limit();
        let given = take_down(&self.by_kind[kind as usize], bytes);
        debug_assert_eq!(given, bytes, "more {} given back than was counted", kind.as_str());
        self.used.fetch_sub(given, Ordering::AcqRel);
        if was_over && !self.over_limit() {
            self.wake();
        }
    }

    /// Takes in what the whole process holds, as the system sees it (`resident_bytes`), so that the limit holds for the process and not for
    /// the counted part of it alone. Called a few times a second.
    pub fn observe_resident(&self, resident_bytes: u64) {
        self.resident.store(resident_bytes, Ordering::Relaxed);
        let booked = self.used_by(BudgetKind::Unaccounted);
        let counted = self.used().saturating_sub(booked);
        let others = self.used_by(BudgetKind::Prefetch) + self.used_by(BudgetKind::Plans) + self.limit_bytes / ROWS_SHARE_MIN;
        let most = self.limit_bytes.saturating_sub(others);
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

    /// Whether the limit is reached, and rows have their share of it: take no more input.
    pub fn over_limit(&self) -> bool {
        self.used() >= self.limit_bytes && self.rows() >= self.limit_bytes / ROWS_SHARE_MIN
    }

    /// The bytes of rows, which go by themselves when the sink takes them.
    fn rows(&self) -> u64 {
        [BudgetKind::OpenBuffers, BudgetKind::InFlight, BudgetKind::DeadLetters].into_iter().map(|kind| self.used_by(kind)).sum()
    }

    /// How many bytes plans use beyond a quarter of the limit: those that nobody uses are to be dropped.
    pub fn plans_excess_bytes(&self) -> u64 {
        self.used_by(BudgetKind::Plans).saturating_sub(self.limit_bytes / PLANS_SHARE)
    }

    /// Whether at least 80 % are in use: close the largest or oldest open buffers.
    pub fn pressure(&self) -> bool {
        u128::from(self.used()) * 100 >= u128::from(self.limit_bytes) * u128::from(PRESSURE_PERCENT)
    }

    /// Has `thread` unparked whenever input may be taken again, until the waiter is dropped.
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
#[path = "budget_tests.rs"]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;
