#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
//! The registry source against a whole registry: the embedded one, which is written independently of `src/schema`.

use millrace::config::RegistryConfig;
use millrace::decode::SchemaKey;
use millrace::embedded::registry::{Credentials, EmbeddedRegistry, Reference, RegistryFault, RegistryFaultRates, RegistrySettings};
use millrace::schema::{RegistrySource, SchemaError, SchemaSource};

fn source(registry: &EmbeddedRegistry, more: &str) -> RegistrySource {
    let config: RegistryConfig = toml::from_str(&format!("urls = ['{}']\n{more}", registry.url())).unwrap();
    RegistrySource::new(&config, None).unwrap()
}

fn record(name: &str, ty: &str) -> String {
    format!(r#"{{"type":"record","name":"{name}","namespace":"n","fields":[{{"name":"f","type":"{ty}"}}]}}"#)
}

#[tokio::test]
async fn ids_references_and_what_is_unknown() {
    let registry = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    let leaf = registry.register("leaf/value", &record("Leaf", "int"), Vec::new()).unwrap();
    let to_leaf = Reference { name: "n.Leaf".into(), subject: "leaf/value".into(), version: 1 };
    let mid = registry.register("mid", &record("Mid", "n.Leaf"), vec![to_leaf]).unwrap();
    let to_mid = Reference { name: "n.Mid".into(), subject: "mid".into(), version: 1 };
    let root = registry.register("root", &record("Root", "n.Mid"), vec![to_mid]).unwrap();
    let source = source(&registry, "");
    source.probe().await.unwrap();
    for (id, references) in [(leaf, 0), (mid, 1), (root, 2)] {
        let schema = source.fetch(&SchemaKey::Id(id)).await.unwrap();
        assert_eq!((schema.id.as_str(), schema.references.len()), (id.to_string().as_str(), references));
    }
    assert!(matches!(source.fetch(&SchemaKey::Id(root + 1)).await, Err(SchemaError::Unknown(_))));
    assert!(matches!(source.fetch(&SchemaKey::Guid([7; 16])).await, Err(SchemaError::Unknown(_))));
}

#[tokio::test]
async fn every_fault_passes() {
    let registry = EmbeddedRegistry::start(RegistrySettings::default()).await.unwrap();
    let id = registry.register("s", &record("R", "int"), Vec::new()).unwrap();
    let source = source(&registry, "timeout = '100ms'");
    for fault in RegistryFault::ALL {
        registry.set_faults(RegistryFaultRates::none().with(fault, 1.0));
        let outcome = source.fetch(&SchemaKey::Id(id)).await;
        assert!(matches!(outcome, Err(SchemaError::Unavailable(_))), "{fault:?}: {outcome:?}");
    }
    registry.set_faults(RegistryFaultRates::none());
    source.fetch(&SchemaKey::Id(id)).await.unwrap();
}

#[tokio::test]
async fn credentials_open_the_door() {
    let credentials = Credentials::Basic { user: "anna".into(), password: "pw".into() };
    let registry = EmbeddedRegistry::start(RegistrySettings { credentials, ..RegistrySettings::default() }).await.unwrap();
    let id = registry.register("s", &record("R", "int"), Vec::new()).unwrap();
    source(&registry, "username = 'anna'\npassword = 'pw'").fetch(&SchemaKey::Id(id)).await.unwrap();
    for wrong in ["", "bearer_token = 'pw'", "username = 'anna'\npassword = 'secret-9'"] {
        let outcome = source(&registry, wrong).fetch(&SchemaKey::Id(id)).await;
        assert!(
            matches!(&outcome, Err(SchemaError::Unavailable(m)) if m.contains("[registry]") && !m.contains("secret-9")),
            "{wrong}: {outcome:?}"
        );
    }
}
