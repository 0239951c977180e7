//! The few requests that are made, each with a deadline.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{RECORD, REQUEST};
use crate::cluster::{NodeAddress, NodeFacts};

/// The API server, as this node may use it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiFailure {
    /// Somebody else was faster, or there is such a thing already.
    #[error("the API server has a newer state than was known here")]
    Conflict,
    /// There is no such thing.
    #[error("{what} does not exist")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// This node may not do that.
    #[error(
        "the API server does not let this router {action} (status {status}): apply deploy/weft.yaml \
         again, which has the ClusterRole"
    )]
    Forbidden {
        /// What was tried.
        action: String,
        /// 401 or 403.
        status: u16,
    },
    /// It does not answer, or not as it should.
    #[error("cannot {action}: {reason}")]
    Unavailable {
        /// What was tried.
        action: String,
        /// The error's text.
        reason: String,
    },
    /// What came does not make sense.
    #[error("{0}")]
    Unusable(String),
}

/// The record with the version that an update has to name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) data: BTreeMap<String, String>,
    pub(super) version: Option<String>,
}

impl Cluster {
    /// The cluster that this pod runs in, or that `KUBECONFIG` names.
    ///
    /// # Errors
    /// Neither is there.
    pub async fn infer() -> Result<Self, ApiFailure> {
        let unusable = |error: &dyn fmt::Display| {
            ApiFailure::Unusable(format!(
                "--kubernetes is given, but the API server is not known: {error}; run as a pod with a \
                 service account, or name a file in KUBECONFIG"
            ))
        };
        let config = kube::Config::infer()
            .await
            .map_err(|error| unusable(&error))?;
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client })
    }

    #[cfg(test)]
    pub(super) fn of(config: kube::Config) -> Self {
        Self {
            client: Client::try_from(config).expect("a configuration of the test"),
        }
    }

    /// All nodes, to be watched.
    pub(super) fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    fn records(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client.clone())
    }

    /// Whether there is a node of this name now; straight from the server, not from the watch.
    pub(super) async fn node_exists(&self, name: &str) -> Result<bool, ApiFailure> {
        let nodes = self.nodes();
        let got = call(format!("read node {name}"), nodes.get_metadata_opt(name)).await?;
        Ok(got.is_some())
    }

    pub(super) async fn record(&self) -> Result<Option<Record>, ApiFailure> {
        let records = self.records();
        let got = call(format!("read ConfigMap {RECORD}"), records.get_opt(RECORD)).await?;
        Ok(got.map(|found| Record {
            version: found.metadata.resource_version,
            data: found.data.unwrap_or_default(),
        }))
    }

    /// Makes the record, which only one node can.
    pub(super) async fn create_record(
        &self,
        data: BTreeMap<String, String>,
    ) -> Result<(), ApiFailure> {
        let mut record = ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        record.metadata.name = Some(RECORD.to_owned());
        let records = self.records();
        let params = PostParams::default();
        let made = records.create(&params, &record);
        call(format!("create ConfigMap {RECORD}"), made)
            .await
            .map(drop)
    }

    /// Changes keys of the record; `None` takes one out. With a version, only if the record still has
    /// that.
    pub(super) async fn change_record(
        &self,
        version: Option<&str>,
        changes: &[(String, Option<&str>)],
    ) -> Result<(), ApiFailure> {
        let data: serde_json::Map<String, Value> = changes
            .iter()
            .map(|(key, value)| (key.clone(), json!(value)))
            .collect();
        let mut patch = json!({ "data": data });
        if let Some(version) = version {
            patch["metadata"] = json!({ "resourceVersion": version });
        }
        let records = self.records();
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let changed = records.patch(RECORD, &params, &patch);
        call(format!("change ConfigMap {RECORD}"), changed)
            .await
            .map(drop)
    }

    /// Tells the scheduler that pods can be placed here.
    pub(super) async fn network_is_available(&self, name: &str) -> Result<(), ApiFailure> {
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let condition = json!({
            "type": "NetworkUnavailable", "status": "False", "reason": "WeftIsUp",
            "message": "the router of weft can attach pods",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        // A list that the strategic merge patch merges by `type`.
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let nodes = self.nodes();
        let params = PatchParams::default();
        let patched = nodes.patch_status(name, &params, &patch);
        call(format!("set a condition of node {name}"), patched)
            .await
            .map(drop)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

async fn call<T>(
    action: String,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiFailure> {
    match timeout(REQUEST, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 => ApiFailure::NotFound { what: action },
            409 => ApiFailure::Conflict,
            status @ (401 | 403) => ApiFailure::Forbidden { action, status },
            _ => ApiFailure::Unavailable {
                action,
                reason: status.to_string(),
            },
        }),
        Ok(Err(error)) => Err(ApiFailure::Unavailable {
            action,
            reason: with_causes(&error),
        }),
        Err(_) => Err(ApiFailure::Unavailable {
            action,
            reason: format!("no answer within {REQUEST:?}"),
        }),
    }
}

pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// What is of interest about a node.
pub(super) fn facts(node: &Node) -> Option<(String, NodeFacts)> {
    let name = node.metadata.name.clone()?;
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    let addresses = addresses.unwrap_or_default().iter().filter_map(|has| {
        let internal = match has.type_.as_str() {
            "InternalIP" => true,
            "ExternalIP" => false,
            _ => return None,
        };
        let address: IpAddr = has.address.parse().ok()?;
        Some(NodeAddress { internal, address })
    });
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let unavailable = conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "NetworkUnavailable");
    let facts = NodeFacts {
        uid: node.metadata.uid.clone().unwrap_or_default(),
        addresses: addresses.collect(),
        network_unavailable: unavailable.map(|condition| condition.status != "False"),
    };
    Some((name, facts))
}
