//! The node as probes see it: whether it moves, and whether pods can use it.

use std::time::Duration;

use control::{ApiError, Status};
use tokio::time::timeout;

use super::{Node, REPORT_DEADLINE, lock, silent};
use crate::http::ControlService;
use crate::http::health::{Health, PATIENCE};
use crate::http::metrics::Observed;
use crate::io::datapath::Datapath;

impl Observed for Node {
    async fn status(&self) -> Result<Status, ApiError> {
        ControlService::status(self).await
    }

    async fn health(&self) -> Health {
        let mut reasons: Vec<String> = self
            .loops
            .stalled(PATIENCE)
            .into_iter()
            .map(|(name, silence)| format!("{name} has not moved for {silence:?}"))
            .collect();
        reasons.extend(lock(&self.datapath).as_ref().and_then(stalled));
        if !matches!(
            timeout(REPORT_DEADLINE, self.mesh.view()).await,
            Ok(Some(_))
        ) {
            reasons.push(silent("mesh").message);
        }
        if timeout(REPORT_DEADLINE, self.ipam.status()).await.is_err() {
            reasons.push(silent("address pool").message);
        }
        Health { reasons }
    }

    async fn readiness(&self) -> Health {
        let mut reasons = Vec::new();
        match &*lock(&self.datapath) {
            Some(datapath) => reasons.extend(stalled(datapath)),
            None => reasons.push("the data path does not run".to_owned()),
        }
        match timeout(REPORT_DEADLINE, self.ipam.status()).await {
            Ok(Ok(ipam)) if ipam.ready => {}
            Ok(Ok(ipam)) => {
                let reason = ipam
                    .reason
                    .unwrap_or_else(|| "no reason is known".to_owned());
                reasons.push(format!("no address can be handed out: {reason}"));
            }
            Ok(Err(error)) => reasons.push(ApiError::from(error).message),
            Err(_) => reasons.push(silent("address pool").message),
        }
        if self.gateways.borrow().is_empty() {
            reasons.push(format!(
                "the bridge {} has no address yet",
                self.settings.bridge
            ));
        }
        Health { reasons }
    }
}

fn stalled(datapath: &Datapath) -> Option<String> {
    let silence = datapath.stalled_for();
    (silence > PATIENCE).then(|| match silence {
        Duration::MAX => "a data path worker has died".to_owned(),
        silence => format!("a data path worker has not moved for {silence:?}"),
    })
}
