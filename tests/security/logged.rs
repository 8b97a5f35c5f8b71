//! Everything that this process logs, at the level of debugging: secrets must not be in it.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

static LINES: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = lines.clone();
    let filter = tracing_subscriber::EnvFilter::new("debug");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || Lines(writer.clone())).init();
    lines
});

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs are kept from now on.
pub fn keep() {
    LazyLock::force(&LINES);
}

/// None of the secrets is in the log or in any of these texts (errors, `Debug`).
pub fn assert_hidden(secrets: &[&str], texts: &[&str]) {
    let log = String::from_utf8_lossy(&LINES.lock()).into_owned();
    assert!(!log.is_empty(), "nothing was logged: the search would be blind");
    for secret in secrets {
        assert!(secret.len() > 5, "too short to search for");
        for text in texts {
            assert!(!text.contains(secret), "a secret is shown: {text}");
        }
        let shown = log.lines().find(|line| line.contains(secret));
        assert!(shown.is_none(), "a secret is logged: {}", shown.unwrap_or_default());
    }
}

/// Writes the log to stdout.
pub fn print() {
    println!("{}", String::from_utf8_lossy(&LINES.lock()));
}
