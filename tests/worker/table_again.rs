//! A table that is made again with other types while the worker runs: the schema of former times keeps nothing waiting.

use std::time::Duration;

use millrace::embedded::bigquery::Settings;
use millrace::pipeline::ConnectorState;

use super::rig::{Rig, SOON, wait_until};

fn schema(ty: &str) -> String {
    format!(r#"{{"type": "record", "name": "V", "fields": [{{"name": "id", "type": "long"}}, {{"name": "v", "type": "{ty}"}}]}}"#)
}

#[test]
fn rows_of_the_new_schema_land_without_a_restart() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("again", 1, 1);
    let old = rig.registry.register("again-value", &schema("int"), Vec::new()).unwrap();
    let new = rig.registry.register("other-value", &schema("string"), Vec::new()).unwrap();
    let framed = |id: u32, payload: &[u8]| [&[0], &id.to_be_bytes()[..], payload].concat();
    let connector = rig.start(
        "again",
        "topics = [\"again\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.again\"\ncreate = true\n[delivery]\nlinger = \"10ms\"\n",
    );
    rig.produce("again", 0, "k", &framed(old, &[2, 2]), &[]);
    rig.wait_for_ids("again", 1..2);
    let table = format!("{}/projects/p/datasets/d/tables", rig.bigquery.rest_url());
    rig.runtime.block_on(async {
        let http = reqwest::Client::new();
        http.delete(format!("{table}/again")).send().await.unwrap().error_for_status().unwrap();
        let body = serde_json::json!({
            "tableReference": { "projectId": "p", "datasetId": "d", "tableId": "again" },
            "schema": { "fields": [{ "name": "id", "type": "INTEGER" }, { "name": "v", "type": "STRING" }] },
        });
        let made = http.post(&table).header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
        made.error_for_status().unwrap();
    });
    std::thread::sleep(Duration::from_millis(1_500));
    // The worker still has its old plan: the write servers refuse its rows, and the table is looked at.
    rig.produce("again", 0, "k", &framed(new, &[4, 2, b'x']), &[]);
    wait_until("the row of the new schema", SOON, || rig.ids("again").contains_key(&2));
    connector.wait_for_state(ConnectorState::Running, SOON);
    // A record of the old schema holds its partition, and says why.
    rig.produce("again", 0, "k", &framed(old, &[6, 2]), &[]);
    let hold = connector.wait_for_hold("again", "type_conflict");
    assert!(hold.message.contains("`v`"), "{hold:?}");
    connector.wait_for_state(ConnectorState::Holding, SOON);
}
