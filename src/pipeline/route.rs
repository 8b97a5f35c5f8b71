//! Which table a topic's records go to.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::config::TableConfig;
use crate::table::TableName;

/// Topics to tables, for one connector.
#[derive(Debug)]
pub struct TableRoutes {
    project: String,
    name: Option<String>,
    by_topic: BTreeMap<String, String>,
    /// Which topic a templated name was given to: `a.b` and `a_b` make the same name, and must not share a table by accident.
    taken: Mutex<BTreeMap<TableName, String>>,
}

impl TableRoutes {
    /// Routes as the connector's `[table]` states them; `project` is for names without one.
    pub fn new(config: &TableConfig, project: &str) -> Self {
        Self {
            project: project.to_owned(),
            name: config.name.clone(),
            by_topic: config.by_topic.clone(),
            taken: Mutex::new(BTreeMap::new()),
        }
    }

    /// The table of a topic.
    ///
    /// # Errors
    /// In words that say what to add to the connector file.
    pub fn table_of(&self, topic: &str) -> Result<TableName, String> {
        if let Some(name) = self.by_topic.get(topic) {
            return self.full_name(name);
        }
        let Some(name) = &self.name else {
            return Err(format!("topic `{topic}` has no table: add it to [table.by_topic], or set [table] name"));
        };
        if !name.contains("${topic}") {
            return self.full_name(name);
        }
        let table = self.full_name(&name.replace("${topic}", &fit(topic)))?;
        let mut taken = self.taken.lock();
        let owner = taken.entry(table.clone()).or_insert_with(|| topic.to_owned());
        if owner == topic {
            Ok(table)
        } else {
            Err(format!("topics `{owner}` and `{topic}` would share table {table}: give one of them a name of its own in [table.by_topic]"))
        }
    }

    fn full_name(&self, name: &str) -> Result<TableName, String> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts.as_slice() {
            [dataset, table] if !dataset.is_empty() && !table.is_empty() => {
                Ok(TableName { project: self.project.clone(), dataset: (*dataset).to_owned(), table: (*table).to_owned() })
            }
            [_, _, _] => name.parse(),
            _ => Err(format!("`{name}` is no table name: expected dataset.table or project.dataset.table")),
        }
    }
}

/// A topic's name as part of a table's: Kafka allows letters, digits, `.`, `_`, `-`; BigQuery's names take no `.`.
fn fit(topic: &str) -> String {
    topic.replace('.', "_")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn routes(name: Option<&str>, by_topic: &[(&str, &str)]) -> TableRoutes {
        TableRoutes {
            project: "p".into(),
            name: name.map(str::to_owned),
            by_topic: by_topic.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
            taken: Mutex::default(),
        }
    }

    #[test]
    fn names_maps_and_templates() {
        let routes = routes(Some("d.${topic}"), &[("x", "other.d.t")]);
        assert_eq!(routes.table_of("x").unwrap().to_string(), "other.d.t");
        assert_eq!(routes.table_of("a.b").unwrap().to_string(), "p.d.a_b");
        assert_eq!(routes.table_of("a.b").unwrap().to_string(), "p.d.a_b");
        assert!(routes.table_of("a_b").unwrap_err().contains("would share table p.d.a_b"));
        let routes = super::tests::routes(None, &[]);
        assert!(routes.table_of("t").unwrap_err().contains("by_topic"));
    }
}
