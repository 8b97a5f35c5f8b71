//! The API server, as a pod finds it, and the names that the chart gives to the pod.

use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};

use crate::leader::store::StoreError;

/// How long a connection may take. Requests have limits of their own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why Kubernetes cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Variables that the pod should have.
    #[error(
        "mode = \"kubernetes\" needs the environment variables POD_NAME, POD_NAMESPACE, MILLRACE_STATEFULSET and MILLRACE_LEASE, as the chart sets them; missing or empty: {0}"
    )]
    Names(String),
    /// No credentials of a ServiceAccount.
    #[error("mode = \"kubernetes\" needs a pod with a ServiceAccount's token (automountServiceAccountToken), or KUBECONFIG: {0}")]
    InCluster(#[from] InClusterError),
    /// `KUBECONFIG` is set, and of no use.
    #[error("KUBECONFIG: {0}")]
    Kubeconfig(#[from] KubeconfigError),
    /// The client refuses the credentials.
    #[error("the Kubernetes client: {0}")]
    Client(#[from] kube::Error),
}

/// Where this worker is, from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `POD_NAME`: this worker.
    pub pod: String,
    /// `POD_NAMESPACE`: where everything lies.
    pub namespace: String,
    /// `MILLRACE_STATEFULSET`: whose scale is set.
    pub stateful_set: String,
    /// `MILLRACE_LEASE`: who holds it leads.
    pub lease: String,
}

impl Place {
    /// Reads the four names; `read` is [`std::env::var`] but in tests.
    ///
    /// # Errors
    /// Names all that are missing or empty.
    pub fn from_environment(read: impl Fn(&str) -> Option<String>) -> Result<Self, KubernetesError> {
        let names = ["POD_NAME", "POD_NAMESPACE", "MILLRACE_STATEFULSET", "MILLRACE_LEASE"];
        let [pod, namespace, stateful_set, lease] = names.map(|name| read(name).filter(|value| !value.is_empty()));
        match (pod, namespace, stateful_set, lease) {
            (Some(pod), Some(namespace), Some(stateful_set), Some(lease)) => Ok(Self { pod, namespace, stateful_set, lease }),
            (pod, namespace, stateful_set, lease) => {
                let found = [pod, namespace, stateful_set, lease];
                let missing = names.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(name, _)| *name);
                Err(KubernetesError::Names(missing.collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// The pod's number in its StatefulSet: what stands behind the last dash. A pod without one counts as the highest.
    pub fn ordinal(&self) -> u32 {
        self.pod.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or(u32::MAX)
    }
}

/// A client with the pod's own credentials, or with `KUBECONFIG`'s where that is set; never with those in a home folder, lest a worker that
/// is tried on a desk resizes whatever its owner last looked at. The token is read again from its file at least once a minute, and so is
/// the authority's certificate: both rotate.
///
/// # Errors
/// There are none, or they cannot be read.
pub async fn connect() -> Result<Client, KubernetesError> {
    let mut config = match std::env::var_os("KUBECONFIG") {
        Some(_) => Config::from_kubeconfig(&KubeConfigOptions::default()).await?,
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // A write is one request: a second one after a 503 could take effect beside the first.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// What an error of the API server means to whoever asked: 409 is a conflict, 404 missing; no answer, a 5xx or a 429: nobody knows, or not
/// now; the rest (401, 403) is a refusal.
pub(super) fn store_error(what: &str, error: &kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) => {
            let words = format!("{what}: the API server says {} {}", status.code, status.message);
            match status.code {
                409 => StoreError::Conflict,
                404 => StoreError::Missing(words),
                429 | 500.. => StoreError::Unanswered(words),
                _ => StoreError::Refused(words),
            }
        }
        other => StoreError::Unanswered(format!("{what}: {}", chain(other))),
    }
}

/// An error with its causes: the outermost one alone says only that a service failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn named(name: &str) -> Option<String> {
        match name {
            "POD_NAME" => Some("millrace-12".into()),
            "POD_NAMESPACE" => Some("warehouse".into()),
            "MILLRACE_STATEFULSET" => Some("millrace".into()),
            "MILLRACE_LEASE" => Some("millrace-leader".into()),
            _ => None,
        }
    }

    #[test]
    fn names_come_from_the_environment() {
        let place = Place::from_environment(named).unwrap();
        assert_eq!((place.ordinal(), place.namespace.as_str(), place.lease.as_str()), (12, "warehouse", "millrace-leader"));
    }

    #[test]
    fn every_missing_name_is_said() {
        let some = |name: &str| match name {
            "POD_NAME" => Some(String::new()),
            "MILLRACE_LEASE" => None,
            other => named(other),
        };
        let error = Place::from_environment(some).unwrap_err().to_string();
        assert!(error.ends_with("missing or empty: POD_NAME, MILLRACE_LEASE"), "{error}");
    }
}
