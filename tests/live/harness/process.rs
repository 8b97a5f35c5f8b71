//! Child processes that never outlive the test, and the two ways to wait for something.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::machine::Watch;

/// How long a server may take until it answers: no promise of anybody's, and several times what two busy cores need.
pub const STARTS_WITHIN: Duration = Duration::from_secs(240);

/// A child with its output in a file. Dropping it kills it; so does the end of the thread that started it, however that ends.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; `prepare` adds arguments and environment.
    pub fn start(name: &str, program: impl AsRef<Path>, log: &Path, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<Self> {
        let mut command = bound(program.as_ref());
        prepare(&mut command);
        let file = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", program.as_ref().display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Sends a signal by its name without `SIG`, such as `TERM`, `STOP`, `CONT`, `KILL`.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        let done = Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &id]).status()?;
        if !done.success() {
            bail!("cannot send {signal} to {} ({id})", self.name);
        }
        Ok(())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let name = self.name.clone();
        wait_for(&format!("the end of {name}"), within, || self.ended())
    }

    /// An error with the end of its output when it does not run any more.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.ended()? {
            bail!("{} ended with {status}; its output closes with:\n{}", self.name, self.log_end());
        }
        Ok(())
    }

    /// The last lines it printed.
    pub fn log_end(&self) -> String {
        last_lines(&self.log, 25)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is fine; then kill says so and wait returns at once.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last lines of a file, long ones cut; of one that cannot be read, why.
pub fn last_lines(file: &Path, count: usize) -> String {
    const WIDTH: usize = 300;
    match std::fs::read(file) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let cut = |line: &&str| line.chars().take(WIDTH).collect::<String>();
            lines[lines.len().saturating_sub(count)..].iter().map(cut).collect::<Vec<_>>().join("\n")
        }
        Err(error) => error.to_string(),
    }
}

/// A command that gets SIGKILL when the thread that starts it ends: `setpriv` (util-linux) asks for that and becomes the program.
pub fn bound(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Asks `look` until it returns something, ten times a second at most. Time for which the machine stood still is not part of `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let began = Watch::start();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > within {
            bail!("{what}: not within {within:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
