//! The workers: real processes of this program, started, killed, told to leave. None outlives this value.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::embedded::ports::free_ports;

/// How often a worker may end by itself before the demo gives up.
const MAX_CRASHES: usize = 10;

/// What a worker's log says when a revocation's commit fails (`kafka/rebalance.rs`).
const REFUSED: &str = "their records may come again";

/// What it says when it begins to drain (`supervisor`).
const DRAINING: &str = "draining; a second signal leaves at once";

/// A worker's process.
struct Worker {
    child: Child,
    port: u16,
    log: PathBuf,
    /// Since when it drains: it was told to leave.
    leaving: Option<Instant>,
}

/// A worker that was told to leave and did.
pub(super) struct Departure {
    pub(super) number: usize,
    /// From SIGTERM to the end of its process.
    pub(super) took: Duration,
    /// It said that its last commit was refused: what it had not committed comes again.
    pub(super) refused: bool,
    /// What was wrong with it, if anything was.
    pub(super) complaint: Option<String>,
}

/// All workers, by number from 0: the ordinals of a StatefulSet.
pub(super) struct Fleet {
    program: PathBuf,
    folder: PathBuf,
    workers: Vec<Option<Worker>>,
    /// The port that each number had last.
    ports: Vec<Option<u16>>,
    starts: u32,
    /// Workers that ended by themselves, in words.
    pub(super) crashes: Vec<String>,
}

impl Fleet {
    /// Where the workers' files and logs are.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts so many workers with the configuration in `folder` (`millrace.toml`, `connectors/`); their logs go there too.
    pub(super) fn start(folder: PathBuf, count: usize) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut fleet = Self { program, folder, workers: Vec::new(), ports: Vec::new(), starts: 0, crashes: Vec::new() };
        for number in 0..count {
            fleet.start_worker(number)?;
        }
        Ok(fleet)
    }

    /// Starts a worker with this number, which must be nobody's.
    pub(super) fn start_worker(&mut self, number: usize) -> Result<()> {
        let port = port(self.ports.get(number).copied().flatten())?;
        self.starts += 1;
        let path = self.folder.join(format!("worker-{number}.{}.log", self.starts));
        let log = File::create(&path).with_context(|| path.display().to_string())?;
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(self.folder.join("millrace.toml"))
            .arg("--connectors")
            .arg(self.folder.join("connectors"))
            .env("MILLRACE_DEMO_LISTEN", format!("127.0.0.1:{port}"))
            .env("MILLRACE_ORDINAL", number.to_string())
            .env(crate::cli::EXIT_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().with_context(|| path.display().to_string())?)
            .stderr(log)
            // Its own process group: Ctrl-C in the terminal is for the demo, which then stops the workers in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} run", self.program.display()))?;
        if self.workers.len() <= number {
            self.workers.resize_with(number + 1, || None);
            self.ports.resize(number + 1, None);
        }
        self.ports[number] = Some(port);
        self.workers[number] = Some(Worker { child, port, log: path, leaving: None });
        Ok(())
    }

    /// SIGTERM: it drains, commits and leaves its groups itself; see [`Self::departures`].
    pub(super) fn retire(&mut self, number: usize) {
        if let Some(Some(worker)) = self.workers.get_mut(number) {
            terminate(&worker.child);
            worker.leaving.get_or_insert_with(Instant::now);
        }
    }

    /// Those that have gone since the last call. One that takes longer than `limit` is killed.
    pub(super) fn departures(&mut self, limit: Duration) -> Vec<Departure> {
        let mut gone = Vec::new();
        for (number, place) in self.workers.iter_mut().enumerate() {
            let Some((worker, since)) = place.as_mut().and_then(|worker| worker.leaving.map(|since| (worker, since))) else { continue };
            let took = since.elapsed();
            let complaint = match worker.child.try_wait() {
                Ok(Some(status)) if status.success() => None,
                Ok(Some(status)) => Some(format!("worker {number} answered SIGTERM with {status}: {}", last_line(&worker.log))),
                Ok(None) if took < limit => continue,
                Ok(None) | Err(_) => {
                    end(&mut worker.child);
                    Some(format!("worker {number} did not leave within {limit:?} after SIGTERM: killed"))
                }
            };
            let said = std::fs::read_to_string(&worker.log).unwrap_or_default();
            let refused = said.rsplit_once(DRAINING).is_some_and(|(_, since)| since.contains(REFUSED));
            *place = None;
            gone.push(Departure { number, took, refused, complaint });
        }
        gone
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn kill(&mut self, number: usize) {
        if let Some(mut worker) = self.workers[number].take() {
            end(&mut worker.child);
        }
    }

    /// Starts those again that ended by themselves, and notes them.
    ///
    /// # Errors
    /// When it happens again and again: then nothing is to be learned from this run.
    pub(super) fn replace_crashed(&mut self) -> Result<()> {
        for number in 0..self.workers.len() {
            let Some(worker) = self.workers[number].as_mut().filter(|worker| worker.leaving.is_none()) else { continue };
            if let Some(status) = worker.child.try_wait().context("waiting for a worker")? {
                let words = last_line(&worker.log);
                self.crashes.push(format!("worker {number} ended by itself: {status}; its last words: {words}"));
                if let Some(last) = self.crashes.last().filter(|_| self.crashes.len() > MAX_CRASHES) {
                    bail!("more than {MAX_CRASHES} workers ended by themselves; the last: {last}");
                }
                self.start_worker(number)?;
            }
        }
        Ok(())
    }

    /// Ports of the workers' HTTP servers, by number, of those that run.
    pub(super) fn ports(&self) -> Vec<(usize, u16)> {
        self.workers.iter().enumerate().filter_map(|(n, w)| w.as_ref().map(|w| (n, w.port))).collect()
    }

    /// How many run, those that are leaving included.
    pub(super) fn alive(&self) -> usize {
        self.workers.iter().flatten().count()
    }

    /// The numbers of those that run and were not told to leave, ascending.
    pub(super) fn serving(&self) -> Vec<usize> {
        let serving = |worker: &Option<Worker>| worker.as_ref().is_some_and(|worker| worker.leaving.is_none());
        self.workers.iter().enumerate().filter(|(_, worker)| serving(worker)).map(|(number, _)| number).collect()
    }

    /// Whether nobody has this number.
    pub(super) fn is_vacant(&self, number: usize) -> bool {
        self.workers.get(number).is_none_or(Option::is_none)
    }

    /// SIGTERM to all, and waits until they are gone; those that are not by then are killed and named.
    pub(super) fn terminate(&mut self, deadline: Duration) -> Vec<String> {
        // A second SIGTERM would make one that is leaving leave at once.
        self.workers.iter().flatten().filter(|worker| worker.leaving.is_none()).for_each(|worker| terminate(&worker.child));
        let until = Instant::now() + deadline;
        let mut complaints = Vec::new();
        for (number, worker) in self.workers.iter_mut().enumerate().filter_map(|(n, w)| w.take().map(|w| (n, w))) {
            let mut child = worker.child;
            loop {
                match child.try_wait() {
                    Ok(Some(status)) if status.success() => break,
                    Ok(Some(status)) => {
                        complaints.push(format!("worker {number} answered SIGTERM with {status}"));
                        break;
                    }
                    Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
                    Ok(None) | Err(_) => {
                        complaints.push(format!("worker {number} did not stop within {deadline:?} after SIGTERM: killed"));
                        end(&mut child);
                        break;
                    }
                }
            }
        }
        complaints
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().flatten() {
            end(&mut worker.child);
        }
    }
}

fn terminate(child: &Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // One that is gone already needs no signal.
        let _ = kill_process(pid, Signal::TERM);
    }
}

fn end(child: &mut Child) {
    // Both fail only when it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

/// The port that a worker had before, so that whoever watches it goes on; another where that is taken by now.
fn port(before: Option<u16>) -> Result<u16> {
    if let Some(port) = before.filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
        return Ok(port);
    }
    let [port] = free_ports().context("a free port")?;
    Ok(port)
}

fn last_line(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("(none)").to_owned()
}
