//! Time as a test may count it: without the time for which the machine stood still.
//!
//! A virtual machine that is stopped for seconds, or whose processors others use, says nothing about the program. A thread that sleeps in
//! short naps tells: what it oversleeps is time in which nobody got a turn.
//!
//! Taken in by `#[path]`. Belongs here: what a limit in a test is held against. Does not belong here: limits.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const NAP: Duration = Duration::from_millis(20);
/// Oversleeping that is an idle machine's, too.
const USUAL: Duration = Duration::from_millis(5);

struct Naps {
    /// When the last nap began.
    since: Instant,
    stood: Duration,
    /// When a nap ended late, milliseconds since the epoch, and how late.
    late: Vec<(i64, Duration)>,
}

static NAPS: LazyLock<Mutex<Naps>> = LazyLock::new(|| {
    thread::spawn(|| {
        loop {
            thread::sleep(NAP);
            let mut naps = NAPS.lock().unwrap_or_else(PoisonError::into_inner);
            let late = overslept(naps.since);
            naps.since = Instant::now();
            naps.stood += late;
            if late > NAP {
                naps.late.push((now_ms(), late));
            }
        }
    });
    Mutex::new(Naps { since: Instant::now(), stood: Duration::ZERO, late: Vec::new() })
});

fn overslept(since: Instant) -> Duration {
    let late = since.elapsed().saturating_sub(NAP);
    if late > USUAL { late } else { Duration::ZERO }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// For how long the machine has stood still since this was first asked.
fn stood_still() -> Duration {
    let naps = NAPS.lock().unwrap_or_else(PoisonError::into_inner);
    // The sleeper may not have come around yet.
    naps.stood + overslept(naps.since)
}

/// An [`Instant`] whose `elapsed` leaves out the time for which the machine stood still.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    began: Instant,
    stood: Duration,
}

impl Watch {
    pub fn start() -> Self {
        let stood = stood_still();
        Self { began: Instant::now(), stood }
    }

    /// As if it had been started so long ago; another must have been by then.
    pub fn started(ago: Duration) -> Self {
        let now_ms = now_ms();
        let stood = stood_still().saturating_sub(stood_still_between(now_ms - ago.as_millis() as i64, now_ms));
        Self { began: Instant::now() - ago, stood }
    }

    /// Time in which the machine worked.
    pub fn elapsed(&self) -> Duration {
        let stood = stood_still().saturating_sub(self.stood);
        self.began.elapsed().saturating_sub(stood)
    }
}

/// For how long the machine stood still between two moments, milliseconds since the epoch, by naps that were overslept a good deal. It must
/// have been watched then: by a [`Watch`] that was started before.
pub fn stood_still_between(from_ms: i64, until_ms: i64) -> Duration {
    let naps = NAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let within = |(ended_ms, late): &(i64, Duration)| {
        let began_ms = ended_ms - late.as_millis() as i64;
        u64::try_from(until_ms.min(*ended_ms) - from_ms.max(began_ms)).unwrap_or_default()
    };
    Duration::from_millis(naps.late.iter().map(within).sum())
}
