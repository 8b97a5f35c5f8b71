//! The order of the house: which room may use which, how long files are, where `unsafe` is, what files are called,
//! what nobody calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

/// From the top down: a room may use rooms of later lines and, on its own line, only itself.
const ORDER: &[&[&str]] = &[
    &["cli"],
    &["supervisor"],
    &["http"],
    &["leader"],
    &["fleet"],
    &["pipeline"],
    &["kafka"],
    &["bigquery"],
    &["schema"],
    &["decode"],
    &["table"],
    &["scaling"],
    &["flow"],
    &["watchdog"],
    &["config", "telemetry", "record"],
    &["datagen"],
    &["embedded"],
];

/// Uses within the lowest line, beside each room's own.
const ALLOWED_BESIDE: &[(&str, &str)] = &[("telemetry", "config")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The room that a file of `src` belongs to.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The code without comments (their paths are links, not uses) and without the insides of strings.
fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let end = line.match_indices("//").map(|(i, _)| i).find(|i| line[..*i].matches('"').count() % 2 == 0);
        out.push_str(&line[..end.unwrap_or(line.len())]);
        out.push('\n');
    }
    out
}

/// Every room that the code names by a path from the crate's root: `crate::room`, `use crate::{a, b::c}`, `millrace::room`.
fn rooms_used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for start in ["crate::", "millrace::"] {
        for (i, _) in code.match_indices(start) {
            // `$crate::` and `other_crate::` are not ours.
            if code[..i].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = code[i + start.len()..].trim_start();
            if let Some(group) = rest.strip_prefix('{') {
                used.extend(top_level_names(group));
            } else {
                used.push(first_name(rest));
            }
        }
    }
    used.retain(|name| ORDER.iter().any(|line| line.contains(&name.as_str())));
    used.sort();
    used.dedup();
    used
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn top_level_names(group: &str) -> Vec<String> {
    let (mut names, mut depth, mut item) = (Vec::new(), 0_usize, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(first_name(std::mem::take(&mut item).trim())),
            c if depth == 0 => item.push(c),
            _ => {}
        }
    }
    names.push(first_name(item.trim()));
    names
}

fn may_use(from: &str, to: &str) -> bool {
    let line = |room: &str| ORDER.iter().position(|line| line.contains(&room));
    match (line(from), line(to)) {
        _ if from == to => true,
        // Only commands start the embedded servers, and those know nothing of millrace.
        (_, Some(_)) if to == "embedded" => from == "cli",
        (Some(_), _) if from == "embedded" => false,
        (Some(a), Some(b)) => a < b || ALLOWED_BESIDE.contains(&(from, to)),
        _ => true,
    }
}

#[test]
fn dependencies_point_down() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in rust_files("src") {
        let from = room(&file);
        for to in rooms_used(&code(&std::fs::read_to_string(&file).unwrap())) {
            seen += 1;
            if from != "lib" && from != "main" && !may_use(&from, &to) {
                wrong.push(format!("{}: {from} uses {to}", shown(&file)));
            }
        }
    }
    assert!(seen > 20, "only {seen} uses were found: the scan is blind");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_what_it_must() {
    let text =
        code("use crate::{config::{A, B}, flow::HoldCause};\nfn f() { crate::http::g(); } // crate::cli\nlet s = \"//\"; crate::table::X");
    assert_eq!(rooms_used(&text), ["config", "flow", "http", "table"]);
    assert!(!may_use("flow", "pipeline") && !may_use("embedded", "flow") && !may_use("pipeline", "embedded"));
    assert!(may_use("pipeline", "kafka") && may_use("cli", "embedded") && !may_use("config", "telemetry"));
}

#[test]
fn every_room_is_in_the_order_and_in_lib_rs() {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).unwrap();
    for file in rust_files("src") {
        let room = room(&file);
        if room != "lib" && room != "main" {
            assert!(ORDER.iter().any(|line| line.contains(&room.as_str())), "{room} is not in the order");
            assert!(lib.contains(&format!("pub mod {room};")), "{room} is not in lib.rs");
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut wrong = Vec::new();
    for file in ["src", "tests", "benches"].iter().flat_map(|folder| rust_files(folder)) {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().count();
        if lines > 400 {
            wrong.push(format!("{}: {lines} lines", shown(&file)));
        }
        let first = text.lines().find(|line| !line.starts_with("#![") && !line.is_empty());
        if !first.is_some_and(|line| line.starts_with("//!")) {
            wrong.push(format!("{}: does not begin by saying what it is (//!)", shown(&file)));
        }
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        let folder = file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        for name in ["util", "utils", "common", "helper", "helpers", "misc"] {
            if stem == name || folder == name {
                wrong.push(format!("{}: a name that says nothing", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_the_partition_queue() {
    let word = regex::Regex::new(r"\bunsafe\b\s*(\{|fn|impl|trait|extern)").unwrap();
    let mut seen_in_queue = false;
    for file in rust_files("src") {
        if word.is_match(&code(&std::fs::read_to_string(&file).unwrap())) {
            let name = shown(&file);
            seen_in_queue |= name == "src/kafka/queue.rs";
            assert_eq!(name, "src/kafka/queue.rs", "unsafe outside the partition queue");
        }
    }
    assert!(seen_in_queue || !root().join("src/kafka/queue.rs").exists(), "the scan does not see the unsafe of src/kafka/queue.rs");
}

#[test]
fn every_folder_of_src_has_a_mod_file_with_its_rules() {
    for file in rust_files("src") {
        let folder = file.parent().unwrap();
        if folder == root().join("src") {
            continue;
        }
        let text = std::fs::read_to_string(folder.join("mod.rs")).unwrap_or_else(|_| panic!("{}: no mod.rs", shown(folder)));
        assert!(text.starts_with("//!"), "{}: no docs", shown(folder));
    }
}

#[test]
fn every_allowance_has_its_reason() {
    let attribute = regex::Regex::new(r"#!?\[(allow|expect)\([^\]]*\]").unwrap();
    let mut seen = 0;
    for file in ["src", "tests", "benches", "fuzz"].iter().flat_map(|folder| rust_files(folder)) {
        let text = std::fs::read_to_string(&file).unwrap();
        for allowance in attribute.find_iter(&text).map(|found| found.as_str()) {
            seen += 1;
            assert!(allowance.contains("reason = "), "{}: {allowance}", shown(&file));
        }
    }
    assert!(seen > 20, "only {seen} attributes were found: the scan is blind");
}

/// The compiler does not say it of a library whose rooms are public: a function that nobody calls is a promise that nobody keeps.
#[test]
fn every_public_function_is_called() {
    let word = regex::Regex::new(r"\w+").unwrap();
    let public = regex::Regex::new(r"(?m)^\s*pub(?:\([a-z]+\))? (?:const |async |unsafe )*fn (\w+)").unwrap();
    let mut count = std::collections::HashMap::<String, usize>::new();
    let mut defined = Vec::new();
    for file in ["src", "tests", "benches", "fuzz"].iter().flat_map(|folder| rust_files(folder)) {
        let text = code(&std::fs::read_to_string(&file).unwrap());
        for found in word.find_iter(&text) {
            *count.entry(found.as_str().to_owned()).or_default() += 1;
        }
        if file.starts_with(root().join("src")) {
            defined.extend(public.captures_iter(&text).map(|found| (shown(&file), found[1].to_owned())));
        }
    }
    assert!(defined.len() > 500, "only {} functions were found: the scan is blind", defined.len());
    let dead: Vec<String> = defined.iter().filter(|(_, name)| count[name] == 1).map(|(file, name)| format!("{file}: {name}")).collect();
    assert!(dead.is_empty(), "nobody calls:\n{}", dead.join("\n"));
}
