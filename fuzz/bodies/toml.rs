//! Both configuration files.
//!
//! Input: `millrace.toml`, a line of `=====`, a connector's file.

use std::fmt::Write as _;
use std::path::PathBuf;

use millrace::config::{load, load_usable};

struct Files {
    fleet: PathBuf,
    connectors: PathBuf,
    connector: PathBuf,
    _folder: tempfile::TempDir,
}

thread_local! {
    static FILES: Files = {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let connectors = folder.path().join("connectors");
        std::fs::create_dir(&connectors).expect("a folder");
        std::fs::write(folder.path().join("secret"), SECRET).expect("a file");
        Files { fleet: folder.path().join("millrace.toml"), connector: connectors.join("one.toml"), connectors, _folder: folder }
    };
}

/// What `${file:secret}` and `${file:../secret}` put in.
const SECRET: &str = "s9-never-shown-4711";

/// What no input may break: no panic, mistakes that name a line of the file, a secret that no error and no `Debug` shows.
pub fn run(input: &[u8]) {
    const BETWEEN: &[u8] = b"\n=====\n";
    let at = input.windows(BETWEEN.len()).position(|window| window == BETWEEN);
    let (fleet, connector) = at.map_or((input, &b""[..]), |at| (&input[..at], &input[at + BETWEEN.len()..]));
    // A name may lead to a device that never ends; what is read there is the user's own choice.
    if [fleet, connector].iter().any(|text| text.windows(3).any(|w| w == b"dev") || text.windows(4).any(|w| w == b"proc")) {
        return;
    }
    FILES.with(|files| {
        std::fs::write(&files.fleet, fleet).expect("a file");
        std::fs::write(&files.connector, connector).expect("a file");
        let mut shown = String::new();
        match load(&files.fleet, &files.connectors) {
            Ok(loaded) => {
                assert_eq!((loaded.connectors.len(), loaded.connectors[0].name.as_str()), (1, "one"));
                let _written = write!(shown, "{loaded:?}");
                assert!(
                    load_usable(&files.fleet, &files.connectors).is_some_and(|usable| usable.refused.is_empty()),
                    "good files that cannot be used"
                );
            }
            Err(errors) => {
                assert!(!errors.0.is_empty(), "an error without a mistake");
                for error in &errors.0 {
                    let text = if error.file == files.fleet { fleet } else { connector };
                    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
                    assert!(error.line <= lines && !error.message.is_empty(), "{error}: there are {lines} lines");
                    let placed = error.line > 0 && error.column > 0;
                    assert!(placed || std::str::from_utf8(text).is_err(), "{error}: where?");
                    assert!(!error.message.contains("please report"), "{error}");
                }
                let _written = write!(shown, "{errors} {errors:?}");
                let _usable = load_usable(&files.fleet, &files.connectors);
            }
        }
        let given = [fleet, connector].iter().any(|text| text.windows(SECRET.len()).any(|window| window == SECRET.as_bytes()));
        assert!(given || !shown.contains(SECRET), "a secret is shown: {shown}");
    });
}
