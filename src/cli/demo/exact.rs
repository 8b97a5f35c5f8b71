//! What exactly-once workers say of takeovers, read from their logs: a killed worker's counters die with it, its lines do not.

use std::path::{Path, PathBuf};

use serde::Serialize;

/// So many takeovers with landed appends are asked for unless the user says otherwise: fewer are no proof that such takeovers double
/// nothing.
pub(super) const LANDED_TAKEOVERS: u64 = 20;

/// Takeovers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Takeovers {
    /// Streams of former owners that were ended and counted.
    pub(super) all: u64,
    /// Of these, how many had appends that had landed although nobody had committed that.
    pub(super) with_landed_appends: u64,
    /// Those appends.
    pub(super) landed_appends: u64,
}

impl Takeovers {
    /// From all logs in a folder; and what could not be read, in words: its takeovers are missing in the count.
    pub(super) fn in_logs(folder: &Path) -> (Self, Vec<String>) {
        let (mut found, mut unreadable) = (Self::default(), Vec::new());
        let mut complain = |path: &Path, error: &std::io::Error| {
            unreadable.push(format!("{} cannot be read ({error}): takeovers in it are not counted", path.display()));
        };
        let entries = std::fs::read_dir(folder).map_err(|error| complain(folder, &error)).into_iter().flatten();
        let paths: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        for path in paths {
            let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
            match path {
                Ok(log) if is_log(&log) => match std::fs::read(&log) {
                    Ok(text) => String::from_utf8_lossy(&text).lines().for_each(|line| found.read(line)),
                    Err(error) => complain(&log, &error),
                },
                Ok(_) => {}
                Err(error) => complain(folder, &error),
            }
        }
        (found, unreadable)
    }

    fn read(&mut self, line: &str) {
        if !line.contains("partition taken over") {
            return;
        }
        // As text `landed=2`, as JSON `"landed":2`.
        let number = |after: &str| after.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().ok();
        let landed = ["landed=", "\"landed\":"].iter().find_map(|name| number(line.split_once(name)?.1));
        self.all += 1;
        self.landed_appends += landed.unwrap_or(0);
        self.with_landed_appends += u64::from(landed.is_some_and(|landed| landed > 0));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_forms_are_counted() {
        let mut found = Takeovers::default();
        found.read(r#"{"message":"partition taken over","partition":"t[1]","landed":12,"of":13}"#);
        found.read("INFO partition taken over connector=\"c\" partition=t[0] stream=\"s\" landed=0 of=1 next_offset=7");
        found.read("INFO partitions assigned landed=3");
        assert_eq!(found, Takeovers { all: 2, with_landed_appends: 1, landed_appends: 12 });
    }

    #[test]
    fn a_log_that_cannot_be_read_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("worker-0.1.log"), "partition taken over landed=3\n").unwrap();
        std::fs::write(folder.path().join("millrace.toml"), "partition taken over landed=3\n").unwrap();
        // Even root cannot read a folder as a file.
        std::fs::create_dir(folder.path().join("worker-1.2.log")).unwrap();
        let (found, unreadable) = Takeovers::in_logs(folder.path());
        assert_eq!(found, Takeovers { all: 1, with_landed_appends: 1, landed_appends: 3 });
        assert!(unreadable.len() == 1 && unreadable[0].contains("worker-1.2.log cannot be read"), "{unreadable:?}");
        let (found, unreadable) = Takeovers::in_logs(&folder.path().join("none"));
        assert!(found.all == 0 && unreadable.len() == 1, "{unreadable:?}");
    }
}
