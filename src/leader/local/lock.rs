//! Leadership by a lock on a file: the kernel gives it to one process, and takes it back when that process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::leader::term::{Leadership, Term, Until};
use crate::leader::timer::Timer;

/// A term by a lock ends with the process: no other can begin before, so a write may take as long as it takes on a disk.
const MARGIN: Duration = Duration::from_secs(10);

/// Why the lock cannot be tried.
#[derive(Debug, thiserror::Error)]
#[error("lock_file {path}: {source}")]
pub struct LockError {
    path: String,
    source: std::io::Error,
}

/// One process's part in the election. In the file stand the number of the term and the holder's name, for people.
pub struct FileLock {
    path: PathBuf,
    name: String,
    period: Duration,
    timer: Arc<dyn Timer>,
    publish: watch::Sender<Leadership>,
}

/// The lock, and the term that it gives: over before the lock is let go, also where a panic does that.
struct Held {
    file: File,
    term: Term,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.term.end();
    }
}

impl FileLock {
    /// For this file, tried every `period`. `name`: this worker's.
    ///
    /// # Errors
    /// The file cannot be made or opened.
    pub fn new(
        path: PathBuf,
        name: String,
        period: Duration,
        timer: Arc<dyn Timer>,
    ) -> Result<(Self, watch::Receiver<Leadership>), LockError> {
        let (publish, leadership) = watch::channel(Leadership::unknown());
        let lock = Self { path, name, period, timer, publish };
        lock.open().map_err(|source| lock.error(source))?;
        Ok((lock, leadership))
    }

    /// Stands for election until `stop`, then lets go.
    pub async fn run(self, stop: CancellationToken) {
        let mut held: Option<Held> = None;
        loop {
            held = match held {
                Some(held) if is_still(&held.file, &self.path) => Some(held),
                Some(held) => {
                    held.term.end();
                    tracing::warn!(term = held.term.number(), "the lock file was taken away: this worker leads the fleet no more");
                    self.publish.send_replace(Leadership::unknown());
                    None
                }
                None => self.attempt(),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.timer.sleep(self.period) => {}
            }
        }
        if let Some(held) = &held {
            held.term.end();
        }
        self.publish.send_replace(Leadership::unknown());
        drop(held); // closing the file lets go of the lock
    }

    fn attempt(&self) -> Option<Held> {
        match self.take() {
            Ok(Ok((file, number))) => {
                let term = Term::new(number, Until::NEVER, MARGIN, self.timer.clone());
                tracing::info!(term = number, "this worker leads the fleet");
                self.publish.send_replace(Leadership::Leader(term.clone()));
                Some(Held { file, term })
            }
            Ok(Err(leader)) => {
                self.follow(leader, None);
                None
            }
            Err(source) => {
                self.follow(None, Some(self.error(source).to_string()));
                None
            }
        }
    }

    fn follow(&self, leader: Option<String>, trouble: Option<String>) {
        self.publish.send_if_modified(|now| match now {
            Leadership::Follower { leader: known, trouble: said } if *known == leader && *said == trouble => false,
            _ => {
                if let Some(trouble) = &trouble {
                    tracing::warn!(trouble, "the election does not get on");
                }
                *now = Leadership::Follower { leader: leader.clone(), trouble: trouble.clone() };
                true
            }
        });
    }

    /// The locked file and the term's number, or who holds it.
    fn take(&self) -> std::io::Result<Result<(File, u64), Option<String>>> {
        let mut file = self.open()?;
        let mut text = String::new();
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                file.read_to_string(&mut text)?;
                return Ok(Err(text.split_whitespace().nth(1).map(str::to_owned)));
            }
            Err(error) => return Err(error.into()),
        }
        if !is_still(&file, &self.path) {
            return Ok(Err(None)); // replaced between opening and locking: the next turn opens the new one
        }
        file.read_to_string(&mut text)?;
        let number = text.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) + 1;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{number} {}", self.name)?;
        Ok(Ok((file, number)))
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&self.path)
    }

    fn error(&self, source: std::io::Error) -> LockError {
        LockError { path: self.path.display().to_string(), source }
    }
}

/// Whether the path still leads to this file: a lock on one that was deleted excludes nobody.
fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::leader::timer::SystemTimer;

    fn candidate(path: &Path, name: &str) -> (CancellationToken, tokio::task::JoinHandle<()>, watch::Receiver<Leadership>) {
        let timer = Arc::new(SystemTimer::default());
        let (lock, leadership) = FileLock::new(path.to_owned(), name.to_owned(), Duration::from_millis(10), timer).unwrap();
        let stop = CancellationToken::new();
        (stop.clone(), tokio::spawn(lock.run(stop)), leadership)
    }

    async fn leads(leadership: &mut watch::Receiver<Leadership>) -> Term {
        let leading = leadership.wait_for(|now| now.term().is_some());
        let leading = tokio::time::timeout(Duration::from_secs(10), leading).await.unwrap().unwrap();
        leading.term().unwrap().clone()
    }

    #[tokio::test]
    async fn one_holds_it_and_the_next_takes_over_with_a_higher_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leader.lock");
        let (stop_a, a, mut of_a) = candidate(&path, "a");
        let first = leads(&mut of_a).await;
        let (stop_b, b, mut of_b) = candidate(&path, "b");
        let following = of_b.wait_for(|now| matches!(now, Leadership::Follower { leader: Some(leader), .. } if leader == "a"));
        tokio::time::timeout(Duration::from_secs(10), following).await.unwrap().unwrap();
        stop_a.cancel();
        a.await.unwrap();
        assert!(!first.is_valid());
        let second = leads(&mut of_b).await;
        assert_eq!((first.number(), second.number()), (1, 2));
        stop_b.cancel();
        b.await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_file_that_is_taken_away_ends_the_term() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leader.lock");
        let (stop, task, mut leadership) = candidate(&path, "a");
        let term = leads(&mut leadership).await;
        std::fs::remove_file(&path).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while term.is_valid() {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        task.await.unwrap();
    }
}
