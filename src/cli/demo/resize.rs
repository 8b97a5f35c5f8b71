//! The fleet follows the replicas file: the leader writes a number there, this process starts workers and tells them to leave.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::flows::FLOWS;
use super::run::Demo;

/// How long a worker may take to leave: longer than its own deadlines (`shutdown_deadline` and closing).
const LEAVE_LIMIT: Duration = Duration::from_secs(40);
/// The group counts as settled when all partitions have had owners for so long. librdkafka's mock cluster refuses commits during a
/// rebalance, where Kafka accepts them: a worker that left in one would double what it had not committed.
const SETTLED_FOR: Duration = Duration::from_secs(1);
/// A group that does not settle for so long does not stop a worker from leaving.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// The file that the leader writes, and since when the fleet is as it should be.
pub(super) struct Follower {
    path: PathBuf,
    /// How many workers the leader wants.
    pub(super) desired: usize,
    owned_since: Option<Instant>,
    too_many_since: Option<Instant>,
}

impl Follower {
    /// Follows this file, which says `desired` now.
    pub(super) fn new(path: PathBuf, desired: usize) -> Self {
        Self { path, desired, owned_since: None, too_many_since: None }
    }

    /// The number in the file; an error when it holds none.
    fn read(&self) -> Result<usize> {
        read_replicas(&self.path)
    }

    /// Takes in whether all partitions have owners. Gives whether a worker may leave now.
    fn may_leave(&mut self, owned: bool, too_many: bool, now: Instant) -> bool {
        self.owned_since = owned.then(|| self.owned_since.unwrap_or(now));
        self.too_many_since = too_many.then(|| self.too_many_since.unwrap_or(now));
        let lasts = |since: Option<Instant>, limit| since.is_some_and(|since| now.duration_since(since) >= limit);
        too_many && (lasts(self.owned_since, SETTLED_FOR) || lasts(self.too_many_since, SETTLE_LIMIT))
    }
}

fn read_replicas(path: &Path) -> Result<usize> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.trim().parse().with_context(|| format!("{}: expected a number of workers, found `{}`", path.display(), text.trim()))
}

impl Demo<'_> {
    /// One look: starts whom the leader wants, tells at most one to leave, notes who has gone.
    pub(super) async fn resize(&mut self) -> Result<()> {
        for gone in self.fleet.departures(LEAVE_LIMIT) {
            if gone.refused {
                let last = self.numbers.get(gone.number).cloned();
                let end = self.note_end(last.as_ref()).await?;
                self.refused_departures.push(end);
            }
            self.past_possible_duplicates += self.forget_numbers(gone.number);
            self.departures += 1;
            self.event(&format!("worker {} drained, committed and left within {:.1} s", gone.number, gone.took.as_secs_f64()));
            self.complaints.extend(gone.complaint);
        }
        let Some(follower) = &self.follower else { return Ok(()) };
        let desired = follower.read()?;
        if desired != follower.desired {
            self.event(&format!("the leader wants {desired} workers instead of {}", follower.desired));
        }
        for number in 0..desired {
            if self.fleet.is_vacant(number) {
                self.fleet.start_worker(number)?;
            }
        }
        let serving = self.fleet.serving();
        let leaving = self.fleet.alive() > serving.len();
        let last = serving.last().copied().filter(|last| *last >= desired);
        let owned = !leaving && self.all_partitions_are_owned(&serving);
        if let Some(follower) = &mut self.follower {
            follower.desired = desired;
            if follower.may_leave(owned, last.is_some() && !leaving, Instant::now())
                && let Some(number) = last
            {
                self.event(&format!("worker {number} is told to leave (SIGTERM)"));
                self.fleet.retire(number);
            }
        }
        Ok(())
    }

    /// Whether these workers own all partitions together, and each of them some.
    pub(super) fn all_partitions_are_owned(&self, serving: &[usize]) -> bool {
        let wanted = FLOWS.len() as u64 * u64::from(self.args.partitions.unsigned_abs());
        let of = |number: &usize| self.numbers.get(*number).map_or(0, |numbers| numbers.assigned);
        serving.iter().map(of).sum::<u64>() == wanted
            && (serving.len() > self.args.partitions as usize || serving.iter().all(|n| of(n) > 0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_worker_leaves_when_the_group_has_settled_or_never_will() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut follower = Follower::new("replicas".into(), 3);
        assert!(!follower.may_leave(true, true, at(0)));
        assert!(!follower.may_leave(false, true, at(900)), "partitions move");
        assert!(!follower.may_leave(true, true, at(1000)));
        assert!(!follower.may_leave(true, false, at(2500)), "nobody is to leave");
        assert!(follower.may_leave(true, true, at(2600)), "settled long before");
        for ms in [2700, 10_000, 22_500] {
            assert!(!follower.may_leave(false, true, at(ms)), "{ms}");
        }
        assert!(follower.may_leave(false, true, at(22_600)), "twenty seconds without an end of it");
    }

    #[test]
    fn the_file_holds_a_number_or_it_is_said_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replicas");
        assert!(read_replicas(&path).is_err());
        crate::leader::local::ReplicasFile::put(&path, 4).unwrap();
        assert_eq!(read_replicas(&path).unwrap(), 4);
        std::fs::write(&path, "many").unwrap();
        assert!(format!("{:#}", read_replicas(&path).unwrap_err()).contains("found `many`"));
    }
}
