//! Which certificate authorities librdkafka trusts: the system's, and `worker.ca_file` beside them.

use std::path::Path;

use super::error::KafkaError;

/// Bundles of the systems that people run containers on; the same list, in the same order, as librdkafka's `probe` (rdkafka_ssl.c:986).
const BUNDLES: &[&str] = &[
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-bundle.crt",
    "/etc/pki/tls/certs/ca-bundle.trust.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/cacert.pem",
    "/etc/certs/ca-certificates.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/certs",
];

/// The properties: `probe` without a file of one's own; else the system's bundle by its path and the file's certificates beside it, since
/// `ssl.ca.location` alone would replace the system's (both are loaded: rdkafka_ssl.c:1197, 1221).
pub(super) fn properties(ca_file: Option<&Path>) -> Result<Vec<(&'static str, String)>, KafkaError> {
    let Some(file) = ca_file else { return Ok(vec![("ssl.ca.location", "probe".to_owned())]) };
    let error = |message: String| KafkaError::Property { origin: "[worker]".to_owned(), property: "ca_file".to_owned(), message };
    let pem = std::fs::read_to_string(file).map_err(|e| error(format!("{}: {e}", file.display())))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(error(format!("{}: holds no certificate in PEM format", file.display())));
    }
    let mut properties = vec![("ssl.ca.pem", pem)];
    if let Some(bundle) = BUNDLES.iter().find(|path| Path::new(path).exists()) {
        properties.push(("ssl.ca.location", (*bundle).to_owned()));
    }
    Ok(properties)
}
