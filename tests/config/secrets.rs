//! What came from the environment or from a file, and every password, appears nowhere.

use super::{CONNECTOR, FLEET, load, write_all};

const SECRET: &str = "geheim-4711";

#[test]
fn values_are_put_in() {
    // PATH is set wherever tests run; the file lies beside the TOML file and ends with a newline.
    let fleet = format!("{}\n[worker]\nlisten = \"${{file:listen}}\"\n", FLEET.replace("127.0.0.1:9092", "${env:PATH}"));
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &fleet, &[("a.toml", CONNECTOR)]);
    std::fs::write(folder.path().join("listen"), "127.0.0.1:1234\n").unwrap();
    let loaded = millrace::config::load(&folder.path().join("millrace.toml"), &folder.path().join("connectors")).unwrap();
    assert_eq!(loaded.fleet.kafka["bootstrap.servers"].to_property(), std::env::var("PATH").unwrap());
    assert_eq!(loaded.fleet.worker.listen, "127.0.0.1:1234");
}

#[test]
fn what_is_not_there_is_a_mistake_with_its_place() {
    let fleet = FLEET.replace("127.0.0.1:9092", "${env:MILLRACE_TEST_UNSET}").replace("\"p\"", "\"${file:no/such}\"");
    let (folder, loaded) = load(&fleet, &[("a.toml", CONNECTOR)]);
    let here = folder.path().display();
    assert_eq!(
        loaded.unwrap_err().to_string(),
        format!(
            "{here}/millrace.toml:3:23: kafka.\"bootstrap.servers\": the environment variable `MILLRACE_TEST_UNSET` is not set\n\
             {here}/millrace.toml:9:11: bigquery.project: the file {here}/no/such cannot be read: No such file or directory (os error 2)"
        )
    );
}

/// Every text value of a file replaced, one at a time, by a secret that does not fit there.
#[test]
fn no_message_shows_a_substituted_value() {
    let fleet = format!(
        "{FLEET}\ncredentials = \"c\"\nrest_endpoint = \"r\"\nappend_timeout = \"a\"\n[worker]\nlisten = \"l\"\nmemory = \"m\"\nca_file = \"f\"\nlog = \"g\"\n"
    );
    let connector = "topics = [\"t\"]\nstart = \"s\"\ngroup = \"u\"\n[value]\nformat = \"v\"\nschemas = \"w\"\n[table]\nname = \"n\"\ncluster = [\"x\"]\nmetadata = [\"y\"]\n[table.columns]\nz = { type = \"T\", unit = \"U\", mode = \"M\", name = \"1\" }\n[delivery]\nlinger = \"i\"\nbatch_bytes = \"j\"\n[errors]\ndead_letter_topic = \"k k\"\n";
    let quoted = regex::Regex::new(r#"= (\[?\{?[^"]*)"([^"]+)""#).unwrap();
    let mut tried = 0;
    for (file, other) in [(fleet.as_str(), "fleet"), (connector, "connector")] {
        for line in file.lines().filter(|line| quoted.is_match(line)) {
            let changed = file.replace(line, &quoted.replace(line, "= $1\"$${file:secret}\""));
            assert_ne!(changed, file);
            let folder = tempfile::tempdir().unwrap();
            let (fleet, connector) = if other == "fleet" { (changed.as_str(), CONNECTOR) } else { (FLEET, changed.as_str()) };
            write_all(folder.path(), fleet, &[("a.toml", connector)]);
            for place in [folder.path().to_owned(), folder.path().join("connectors")] {
                std::fs::write(place.join("secret"), format!("{SECRET} !\n")).unwrap();
            }
            let loaded = millrace::config::load(&folder.path().join("millrace.toml"), &folder.path().join("connectors"));
            if let Err(errors) = loaded {
                tried += 1;
                assert!(!format!("{errors} {errors:?}").contains(SECRET), "{line}:\n{errors}");
            }
        }
    }
    assert!(tried > 15, "only {tried} files had a mistake");
}

#[test]
fn syntax_errors_do_not_quote_the_line() {
    let fleet = FLEET.replace("\"127.0.0.1:9092\"", &format!("\"{SECRET}"));
    let (_folder, loaded) = load(&fleet, &[("a.toml", CONNECTOR)]);
    let errors = loaded.unwrap_err();
    assert!(errors.to_string().contains(":3:"), "{errors}");
    assert!(!format!("{errors} {errors:?}").contains(SECRET), "{errors}");
}

#[test]
fn debug_and_json_of_what_was_loaded_show_no_secret() {
    let fleet = FLEET.replace("urls =", &format!("username = \"u\"\npassword = \"{SECRET}\"\nurls =")) + "credentials = \"none\"\n";
    let fleet = fleet.replace("[registry]", &format!("\"sasl.password\" = \"{SECRET}\"\n[registry]"));
    let (_folder, loaded) = load(&fleet, &[("a.toml", &format!("{CONNECTOR}[kafka]\n\"sasl.password\" = \"{SECRET}\"\n"))]);
    let loaded = loaded.unwrap();
    let shown = format!("{loaded:?} {:#?} {}", loaded.fleet, serde_json::to_string(&loaded.fleet).unwrap())
        + &serde_json::to_string(&loaded.connectors).unwrap();
    assert!(shown.contains("***"));
    assert!(!shown.contains(SECRET), "{shown}");
    assert_eq!(loaded.fleet.registry.unwrap().password.unwrap().expose(), SECRET);
}
