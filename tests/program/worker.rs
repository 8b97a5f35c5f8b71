//! One worker's process.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const START_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(90);

/// `millrace run` with `millrace.toml` and `connectors/` of a folder; killed when it is dropped.
pub struct WorkerProcess {
    child: Child,
    address: String,
    log: PathBuf,
}

impl WorkerProcess {
    /// Starts it as the worker of this ordinal, its log in the file `log`, and waits until it says where it listens.
    pub fn start(folder: &Path, log: &str, ordinal: usize) -> Self {
        let path = folder.join(log);
        let file = fs::File::create(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.arg("run").arg("--config").arg(folder.join("millrace.toml")).arg("--connectors").arg(folder.join("connectors"));
        command.env("MILLRACE_ORDINAL", ordinal.to_string()).env_remove("POD_NAME");
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let mut worker = Self { child: command.spawn().unwrap(), address: String::new(), log: path };
        let begun = Instant::now();
        worker.address = loop {
            if let Some(address) = worker.logged("\"address\"").and_then(|line| address_in(&line)) {
                break address;
            }
            assert!(begun.elapsed() < START_WITHIN, "no address within {START_WITHIN:?}; {}", worker.log_end(24));
            std::thread::sleep(Duration::from_millis(50));
        };
        worker
    }

    /// Where it listens: host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end after SIGTERM; it must end well.
    pub fn wait_for_end(mut self) {
        let begun = Instant::now();
        let status = loop {
            match self.ended() {
                Some(status) => break status,
                None => assert!(begun.elapsed() < END_WITHIN, "it did not end within {END_WITHIN:?}; {}", self.log_end(24)),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(status.success(), "{status}; {}", self.log_end(24));
    }

    /// Everything that it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The first line of its log that holds this text.
    pub fn logged(&self, text: &str) -> Option<String> {
        self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
    }

    /// The last lines, for messages, long ones cut.
    pub fn log_end(&self, count: usize) -> String {
        const WIDTH: usize = 300;
        let log = self.log();
        let lines: Vec<String> = log.lines().map(|line| line.chars().take(WIDTH).collect()).collect();
        format!("{} ends with:\n{}", self.log.display(), lines[lines.len().saturating_sub(count)..].join("\n"))
    }

    /// Status code and body of a path. HTTP 1.0: the body comes in one piece.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// `GET` of a path that answers with JSON.
    pub fn json(&self, path: &str) -> Value {
        let (code, body) = self.get(path);
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn address_in(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    let field = |value: &Value| value["address"].as_str().map(str::to_owned);
    field(&line).or_else(|| field(&line["fields"]))
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
