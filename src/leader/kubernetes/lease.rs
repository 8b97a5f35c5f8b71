//! A `coordination.k8s.io/v1` Lease as the place of a lease.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;

use super::client::{Place, store_error};
use crate::leader::lease::{LeaseRecord, LeaseStore};
use crate::leader::store::StoreError;

/// The Lease that the chart ships.
pub struct KubernetesLease {
    api: Api<Lease>,
    name: String,
    what: String,
    /// Labels and annotations as last read: a replacement without them would take them away, and Helm's ownership with them.
    metadata: Mutex<ObjectMeta>,
}

impl KubernetesLease {
    /// The Lease of this place.
    pub fn new(client: Client, place: &Place) -> Self {
        Self {
            api: Api::namespaced(client, &place.namespace),
            name: place.lease.clone(),
            what: format!("Lease {}/{}", place.namespace, place.lease),
            metadata: Mutex::new(ObjectMeta::default()),
        }
    }

    fn error(&self, error: &kube::Error) -> StoreError {
        match store_error(&self.what, error) {
            StoreError::Missing(words) => StoreError::Missing(format!("{words}; the chart ships it, millrace does not create it")),
            other => other,
        }
    }

    /// Keeps the metadata; returns the version.
    fn keep(&self, metadata: ObjectMeta) -> Result<String, StoreError> {
        let version = metadata.resource_version.clone();
        *self.metadata.lock() = metadata;
        version.ok_or_else(|| StoreError::Unanswered(format!("{}: the API server answered without a resourceVersion", self.what)))
    }
}

#[async_trait]
impl LeaseStore for KubernetesLease {
    async fn read(&self) -> Result<(LeaseRecord, String), StoreError> {
        let lease = self.api.get(&self.name).await.map_err(|error| self.error(&error))?;
        let record = record(&lease.spec.unwrap_or_default());
        Ok((record, self.keep(lease.metadata)?))
    }

    async fn replace(&self, version: &str, record: &LeaseRecord) -> Result<String, StoreError> {
        let metadata = self.metadata.lock().clone();
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            resource_version: Some(version.to_owned()),
            managed_fields: None, // the API server's own books
            ..metadata
        };
        let lease = Lease { metadata, spec: Some(spec(record)) };
        let written = self.api.replace(&self.name, &PostParams::default(), &lease).await.map_err(|error| self.error(&error))?;
        self.keep(written.metadata)
    }
}

fn record(spec: &LeaseSpec) -> LeaseRecord {
    let time = |time: &Option<MicroTime>| time.as_ref().map(|time| time.0.as_microsecond());
    LeaseRecord {
        holder: spec.holder_identity.clone().unwrap_or_default(),
        duration: spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).map(Duration::from_secs),
        acquired_us: time(&spec.acquire_time),
        renewed_us: time(&spec.renew_time),
        transitions: spec.lease_transitions.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
    }
}

fn spec(record: &LeaseRecord) -> LeaseSpec {
    let time = |us: Option<i64>| us.and_then(|us| Timestamp::from_microsecond(us).ok()).map(MicroTime);
    // The API wants whole seconds, at least one.
    let seconds = |span: Duration| i32::try_from(span.as_millis().div_ceil(1000).max(1)).unwrap_or(i32::MAX);
    LeaseSpec {
        holder_identity: Some(record.holder.clone()),
        lease_duration_seconds: record.duration.map(seconds),
        acquire_time: time(record.acquired_us),
        renew_time: time(record.renewed_us),
        lease_transitions: Some(i32::try_from(record.transitions).unwrap_or(i32::MAX)),
        ..LeaseSpec::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let written = LeaseRecord {
            holder: "millrace-0_1f".into(),
            duration: Some(Duration::from_secs(15)),
            acquired_us: Some(1_700_000_000_000_001),
            renewed_us: Some(1_700_000_000_000_002),
            transitions: 7,
        };
        assert_eq!(record(&spec(&written)), written);
    }

    #[test]
    fn an_empty_one_is_free_and_a_short_one_is_a_second() {
        assert_eq!(record(&LeaseSpec::default()), LeaseRecord::default());
        let short = LeaseRecord { duration: Some(Duration::from_millis(300)), ..LeaseRecord::default() };
        assert_eq!(spec(&short).lease_duration_seconds, Some(1));
    }
}
