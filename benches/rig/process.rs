//! A child process and what it has cost so far, as the kernel counts it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Clock ticks a second in /proc (USER_HZ: 100 on every Linux architecture that Rust has).
const TICKS: f64 = 100.0;

/// A child whose output is in a file. Dropping it kills it; so does the end of the thread that started it.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// What a process has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time of all its threads, seconds.
    pub cpu_s: f64,
    /// Resident memory now, MiB.
    pub rss_mib: f64,
    /// The most resident memory it ever had, MiB.
    pub peak_rss_mib: f64,
    /// Threads now.
    pub threads: u64,
    /// Open file descriptors now.
    pub descriptors: u64,
}

impl Process {
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {} (setpriv is in util-linux)", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn usage(&self) -> Result<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).context("the process is gone")?;
        // Fields 14 and 15; the command's name, field 2, may hold spaces.
        let after_name = stat.rsplit_once(')').context("no stat line")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let number = |key: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key} in /proc"))?;
            Ok(line.split_whitespace().next().context("an empty line in /proc")?.parse()?)
        };
        Ok(Usage {
            cpu_s: ticks / TICKS,
            rss_mib: number("VmRSS:")? / 1024.0,
            peak_rss_mib: number("VmHWM:")? / 1024.0,
            threads: number("Threads:")? as u64,
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", self.id()))?.count() as u64,
        })
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// An error with the end of its output when it does not run any more.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            bail!(
                "a process ended with {status}; {} closes with:\n{}",
                self.log.display(),
                lines[lines.len().saturating_sub(30)..].join("\n")
            );
        }
        Ok(())
    }

    /// The first line of its output that begins with `head`, without it.
    pub fn wait_for_line(&mut self, head: &str, within: Duration) -> Result<String> {
        wait_for(head, within, || {
            if let Some(line) = self.output().lines().find_map(|line| line.strip_prefix(head).map(str::to_owned)) {
                return Ok(Some(line));
            }
            self.check_running().map(|()| None)
        })
    }

    /// Sends it a signal by name: `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { bail!("SIG{name} could not be sent") }
    }

    /// SIGTERM, and at most `within` for it to end by itself.
    pub fn terminate(&mut self, within: Duration) -> Result<()> {
        self.signal("TERM")?;
        wait_for("the end after SIGTERM", within, || Ok(self.child.try_wait()?.map(drop)))
    }

    pub fn wait(&mut self, within: Duration) -> Result<()> {
        let status = wait_for("the end of a process", within, || Ok(self.child.try_wait()?))?;
        if status.success() { Ok(()) } else { bail!("a process ended with {status}:\n{}", self.output()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks `look` every 20 ms until it returns something.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The middle one of an odd number of figures, the upper middle one of an even number.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
