//! CPU time of librdkafka's threads: they fetch, decompress and check, and are full before our own threads are.

use std::collections::HashMap;

/// Ticks of `/proc` a second: `USER_HZ`, which is 100 on every architecture that Linux is built for (man 5 proc, `CLK_TCK`).
const TICKS_PER_S: f64 = 100.0;
/// How librdkafka names its threads (`rdkafka_broker.c`, `rdkafka.c`): `rdk:main`, `rdk:broker1`.
const PREFIX: &str = "rdk:";

/// Seconds of CPU that each of librdkafka's threads in this process has used, by thread id; `None` where the system has no such files.
pub fn kafka_threads_s() -> Option<HashMap<u32, f64>> {
    let mut threads = HashMap::new();
    for entry in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread that ends meanwhile has no file any more.
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        threads.extend(seconds_of(&stat).map(|seconds| (id, seconds)));
    }
    Some(threads)
}

/// The CPU seconds in a line of `/proc/<pid>/task/<tid>/stat`, when the thread is librdkafka's.
fn seconds_of(stat: &str) -> Option<f64> {
    // The name stands in parentheses and may hold anything, also parentheses.
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    let mut fields = after.split_ascii_whitespace();
    // After the name: state is field 3, utime 14, stime 15.
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    name.starts_with(PREFIX).then_some((user + system) / TICKS_PER_S)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_librdkafkas_threads_count() {
        let line = |name: &str| format!("41 ({name}) S 1 41 41 0 -1 4194304 10 0 0 0 250 50 0 0 20 0 9 0 100 1000 10");
        assert_eq!(seconds_of(&line("rdk:broker1")), Some(3.0));
        assert_eq!(seconds_of(&line("rdk:(odd) name")), Some(3.0));
        assert_eq!(seconds_of(&line("shard-0-stock")), None);
        assert_eq!(seconds_of("41 (rdk:main) S 1"), None);
        assert!(kafka_threads_s().is_some());
    }
}
