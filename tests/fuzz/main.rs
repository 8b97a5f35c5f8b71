//! What the fuzzers kept (`fuzz/corpus`), through the same functions as they use: what was found once stays mended.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

#[path = "../../fuzz/bodies/avro.rs"]
mod avro;
#[path = "../../fuzz/bodies/decide.rs"]
mod decide;
#[path = "../../fuzz/bodies/framing.rs"]
mod framing;
#[path = "../../fuzz/bodies/json.rs"]
mod json;
#[path = "../../fuzz/bodies/rest.rs"]
mod rest;
#[path = "../../fuzz/bodies/toml.rs"]
mod toml_files;

mod bounds;

/// Every input of a target's corpus, in the order of their names. A body panics where a promise is broken; which input it was is told.
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{}: only {} inputs", folder.display(), files.len());
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 64 * 1024, "{}: {bytes} bytes: minimise it (`cargo fuzz cmin {target}`)", folder.display());
    for file in files {
        let input = std::fs::read(&file).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| body(&input)) {
            eprintln!("the input was {}", file.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn avro_corpus() {
    replay("avro", avro::run);
}

#[test]
fn framing_corpus() {
    replay("framing", framing::run);
}

#[test]
fn json_corpus() {
    replay("json", json::run);
}

#[test]
fn toml_corpus() {
    replay("toml", toml_files::run);
}

#[test]
fn decide_corpus() {
    replay("decide", decide::run);
}

#[test]
fn rest_corpus() {
    replay("rest", rest::run);
}
