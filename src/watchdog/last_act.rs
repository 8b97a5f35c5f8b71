//! The last act: the words on stderr and in the log, then the end, within a second, whatever is locked meanwhile.

use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The process's exit code when a thread or task of it is wedged: EX_SOFTWARE of sysexits.h.
pub const EXIT_CODE: i32 = 70;

/// How long the words may take: stderr may be a pipe that nobody reads, which may be the very reason.
const SAY_MAX: Duration = Duration::from_millis(400);
/// How long a regular exit may take: what libraries do at an exit may wait for what is wedged.
const EXIT_MAX: Duration = Duration::from_millis(400);

/// Says why, and ends the process: by [`EXIT_CODE`], or where even that hangs, by SIGABRT. Never returns to a process that goes on.
pub(super) fn end_process(words: &str) {
    let said = words.to_owned();
    within(SAY_MAX, "watchdog-says", move || {
        // The log goes to stderr too, in its own form, as far as a filter lets it.
        eprintln!("millrace: {said}");
        tracing::error!(exit_code = EXIT_CODE, "{said}");
    });
    within(EXIT_MAX, "watchdog-ends", || std::process::exit(EXIT_CODE));
    std::process::abort();
}

/// Does something on a thread of its own, and waits for it no longer than `limit`; not at all where there is no thread.
pub(super) fn within(limit: Duration, name: &str, act: impl FnOnce() + Send + 'static) {
    let (done, ended) = sync_channel(1);
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        act();
        // Nobody waits any more: it took too long.
        let _late = done.try_send(());
    });
    if spawned.is_ok() {
        // Done, too late, or panicked: what follows is the same.
        let _whatever = ended.recv_timeout(limit);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_hangs_is_not_waited_for() {
        let began = Instant::now();
        let long = Duration::from_secs(600);
        within(Duration::from_millis(50), "hangs", move || std::thread::sleep(long));
        assert!((Duration::from_millis(50)..long / 2).contains(&began.elapsed()));
        let began = Instant::now();
        within(long, "ends", || {});
        assert!(began.elapsed() < long / 2);
        assert!(SAY_MAX + EXIT_MAX < Duration::from_secs(1));
    }
}
