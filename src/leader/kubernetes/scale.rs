//! The scale subresource of the worker's own StatefulSet.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v1::{Scale as ScaleObject, ScaleSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use super::client::{Place, store_error};
use crate::leader::replicas::{Replicas, Scale};
use crate::leader::store::StoreError;

/// The scale of one StatefulSet. Versions are its `resourceVersion`, which the API server compares when it writes.
pub struct KubernetesScale {
    api: Api<StatefulSet>,
    namespace: String,
    name: String,
    what: String,
}

impl KubernetesScale {
    /// The scale of this place's StatefulSet.
    pub fn new(client: Client, place: &Place) -> Self {
        Self {
            api: Api::namespaced(client, &place.namespace),
            namespace: place.namespace.clone(),
            name: place.stateful_set.clone(),
            what: format!("scale of StatefulSet {}/{}", place.namespace, place.stateful_set),
        }
    }

    async fn limited<T>(&self, timeout: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, StoreError> {
        match tokio::time::timeout(timeout, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(store_error(&self.what, &error)),
            Err(_) => Err(StoreError::Unanswered(format!("{}: no answer within {timeout:?}", self.what))),
        }
    }
}

#[async_trait]
impl Replicas for KubernetesScale {
    async fn read(&self, timeout: Duration) -> Result<Scale, StoreError> {
        let scale = self.limited(timeout, self.api.get_scale(&self.name)).await?;
        let number = |n: i32| u32::try_from(n).ok();
        let without = |what: &str| StoreError::Unanswered(format!("{}: the API server answered without {what}", self.what));
        Ok(Scale {
            // A number that is 0 is left out of the JSON.
            replicas: scale.spec.and_then(|spec| number(spec.replicas.unwrap_or(0))).ok_or_else(|| without("spec.replicas"))?,
            existing: scale.status.and_then(|status| number(status.replicas)),
            version: scale.metadata.resource_version.ok_or_else(|| without("a resourceVersion"))?,
        })
    }

    async fn write(&self, version: &str, replicas: u32, timeout: Duration) -> Result<(), StoreError> {
        let replicas = i32::try_from(replicas).map_err(|_| StoreError::Refused(format!("{}: {replicas} is too many", self.what)))?;
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let scale = ScaleObject { metadata, spec: Some(ScaleSpec { replicas: Some(replicas) }), status: None };
        self.limited(timeout, self.api.replace_scale(&self.name, &PostParams::default(), &scale)).await.map(drop)
    }
}
