//! A process that must not outlive the one that started it.

use std::os::unix::process::parent_id;
use std::time::Duration;

/// Set in the environment of processes that end when their parent is gone (the demo's workers).
pub(super) const EXIT_WITH_PARENT: &str = "MILLRACE_EXIT_WITH_PARENT";

/// When the variable is set: ends this process at once, as a crash would, within half a second of its parent's end.
pub(super) fn exit_with_parent() {
    if std::env::var_os(EXIT_WITH_PARENT).is_none() {
        return;
    }
    let parent = parent_id();
    let watch = move || {
        while parent_id() == parent {
            std::thread::sleep(Duration::from_millis(500));
        }
        eprintln!("millrace: the parent process is gone ({EXIT_WITH_PARENT} is set)");
        std::process::exit(1);
    };
    if let Err(e) = std::thread::Builder::new().name("parent".to_owned()).spawn(watch) {
        eprintln!("millrace: nobody watches the parent process: {e}");
    }
}
