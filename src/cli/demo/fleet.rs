//! The workers: real processes of this program, killed and started again. None outlives this value.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a worker may end by itself before the demo gives up.
const MAX_CRASHES: usize = 10;

/// A worker's process.
struct Worker {
    child: Child,
    port: u16,
    log: PathBuf,
}

/// All workers, by number from 0.
pub(super) struct Fleet {
    program: PathBuf,
    folder: PathBuf,
    workers: Vec<Option<Worker>>,
    starts: u32,
    /// Workers that ended by themselves, in words.
    pub(super) crashes: Vec<String>,
}

impl Fleet {
    /// Starts so many workers with the configuration in `folder` (`millrace.toml`, `connectors/`); their logs go there too.
    pub(super) fn start(folder: PathBuf, count: usize) -> Result<Self> {
        let program = std::env::current_exe().context("this program's own path")?;
        let mut fleet = Self { program, folder, workers: Vec::new(), starts: 0, crashes: Vec::new() };
        for number in 0..count {
            fleet.workers.push(None);
            fleet.start_worker(number)?;
        }
        Ok(fleet)
    }

    /// Starts a worker in the place of one that ended.
    pub(super) fn start_worker(&mut self, number: usize) -> Result<()> {
        let port = free_port()?;
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
            .env(crate::cli::EXIT_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().with_context(|| path.display().to_string())?)
            .stderr(log)
            // Its own process group: Ctrl-C in the terminal is for the demo, which then stops the workers in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} run", self.program.display()))?;
        self.workers[number] = Some(Worker { child, port, log: path });
        Ok(())
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
            let Some(worker) = &mut self.workers[number] else { continue };
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

    /// How many run.
    pub(super) fn alive(&self) -> usize {
        self.workers.iter().flatten().count()
    }

    /// SIGTERM to all, and waits until they are gone; those that are not by then are killed and named.
    pub(super) fn terminate(&mut self, deadline: Duration) -> Vec<String> {
        for worker in self.workers.iter().flatten() {
            if let Some(pid) = i32::try_from(worker.child.id()).ok().and_then(Pid::from_raw) {
                // One that is gone already needs no signal.
                let _ = kill_process(pid, Signal::TERM);
            }
        }
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

fn end(child: &mut Child) {
    // Both fail only when it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn free_port() -> Result<u16> {
    let probe = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(probe.local_addr().context("a free port")?.port())
}

fn last_line(log: &std::path::Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("(none)").to_owned()
}
