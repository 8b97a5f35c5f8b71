//! The two flows of the demo: which topic, connector, table and dead-letter topic belong together. As in `connectors/`.

/// One topic on its way to one table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    /// The connector: the name of its file.
    pub(super) connector: &'static str,
    /// Its file, as shipped.
    pub(super) file: &'static str,
    pub(super) topic: &'static str,
    pub(super) table: &'static str,
    pub(super) dead_letter_topic: &'static str,
    /// The header that names the schema; without one, the registry has it.
    pub(super) schema_header: Option<&'static str>,
}

impl Flow {
    /// The connector's consumer group: Kafka Connect's name for it.
    pub(super) fn group(&self) -> String {
        format!("connect-{}", self.connector)
    }
}

/// The dataset of both tables.
pub(super) const DATASET: &str = "warehouse";
/// The project.
pub(super) const PROJECT: &str = "demo";

/// Both flows.
pub(super) const FLOWS: [Flow; 2] = [
    Flow {
        connector: "physical-stock",
        file: include_str!("../../../connectors/physical-stock.toml"),
        topic: "sms_physical_stock_updated_topic",
        table: "physical_stock",
        dead_letter_topic: "physical-stock.dead",
        schema_header: Some("schema"),
    },
    Flow {
        connector: "stock-by-registry",
        file: include_str!("../../../connectors/stock-by-registry.toml"),
        topic: "sms_physical_stock_by_registry",
        table: "stock_by_registry",
        dead_letter_topic: "stock-by-registry.dead",
        schema_header: None,
    },
];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_connectors_say_the_same() {
        for flow in FLOWS {
            let file: toml::Value = toml::from_str(flow.file).unwrap();
            assert_eq!(file["topics"][0].as_str(), Some(flow.topic));
            assert_eq!(file["table"]["name"].as_str(), Some(format!("{DATASET}.{}", flow.table).as_str()));
            assert_eq!(file["errors"]["dead_letter_topic"].as_str(), Some(flow.dead_letter_topic));
            assert_eq!(file["value"].get("schema_header").and_then(toml::Value::as_str), flow.schema_header);
            assert!(file.get("group").is_none());
        }
    }
}
