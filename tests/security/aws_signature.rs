//! What AWS's token service does with a signed GetCallerIdentity that it gets from Google: signs it as well, and compares
//! ("Create a signed AWS API request", IAM User Guide).

use std::collections::BTreeMap;

use aws_lc_rs::{digest, hmac};
use serde_json::Value;

/// A subject token as Google's token service reads it.
pub struct CallerIdentity {
    pub url: reqwest::Url,
    pub headers: BTreeMap<String, String>,
}

/// Reads a subject token of type `aws4_request` and checks its signature with the caller's secret key.
pub fn verified(subject_token: &str, secret: &str) -> CallerIdentity {
    let decoded = reqwest::Url::parse(&format!("http://x/?t={subject_token}")).unwrap().query_pairs().next().unwrap().1.into_owned();
    let request: Value = serde_json::from_str(&decoded).unwrap();
    assert_eq!(request["method"], "POST");
    let url = reqwest::Url::parse(request["url"].as_str().unwrap()).unwrap();
    let headers: BTreeMap<String, String> = request["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|h| (h["key"].as_str().unwrap().to_lowercase(), h["value"].as_str().unwrap().to_owned()))
        .collect();
    let (algorithm, fields) = headers["authorization"].split_once(' ').unwrap();
    assert_eq!(algorithm, "AWS4-HMAC-SHA256");
    let fields: BTreeMap<&str, &str> = fields.split(", ").map(|field| field.split_once('=').unwrap()).collect();
    let (_, scope) = fields["Credential"].split_once('/').unwrap();
    let names: Vec<&str> = fields["SignedHeaders"].split(';').collect();
    for needed in ["host", "x-amz-date", "x-goog-cloud-target-resource"] {
        assert!(names.contains(&needed), "{needed} is not signed");
    }
    assert_eq!(headers["host"], url.host_str().unwrap());
    let lines: Vec<String> = names.iter().map(|name| format!("{name}:{}\n", headers[*name])).collect();
    let body_hash = hex::encode(digest::digest(&digest::SHA256, b""));
    let canonical = ["POST", url.path(), url.query().unwrap(), &lines.concat(), &names.join(";"), &body_hash].join("\n");
    let hashed = hex::encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    let to_sign = ["AWS4-HMAC-SHA256", &headers["x-amz-date"], scope, &hashed].join("\n");
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    assert_eq!(fields["Signature"], hex::encode(mac(&key, &to_sign)), "AWS would refuse the signature");
    CallerIdentity { url, headers }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}
