//! What exactly-once workers say of takeovers, read from their logs: a killed worker's counters die with it, its lines do not.

use std::path::Path;

use serde::Serialize;

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
    /// From all logs in a folder. What cannot be read counts nothing.
    pub(super) fn in_logs(folder: &Path) -> Self {
        let mut found = Self::default();
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in files.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
            String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).lines().for_each(|line| found.read(line));
        }
        found
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
}
