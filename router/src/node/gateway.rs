//! The bridge's own address: the pods' gateway. It is asked for like any other, and is another
//! node's when this one was declared gone and came back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::ApiError;
use fastpath::OwnAddress;
use ipnet::IpNet;

use super::{Node, bridge_key, left, lock};

impl Node {
    /// Gives the bridge its address, if it has none yet: the pods' gateway.
    ///
    /// # Errors
    /// No address can be had in this time, or the kernel does not take it.
    pub async fn ensure_gateway(&self, deadline: Duration) -> Result<Vec<IpNet>, ApiError> {
        let known = self.gateways.borrow().clone();
        if !known.is_empty() {
            return Ok(known);
        }
        let end = Instant::now() + deadline;
        loop {
            // Without the lock: whoever waits for an address is told why at its own deadline.
            let address = self.own_address(left(end)).await?;
            let _one_at_a_time = self.gateway_lock.lock().await;
            let known = self.gateways.borrow().clone();
            if !known.is_empty() {
                return Ok(known);
            }
            let key = bridge_key(&self.settings.bridge)?;
            if self.ipam.lookup(key).await? == Some(address) {
                return self.set_gateway(address).await;
            }
        }
    }

    /// An address for the bridge: the same each time.
    async fn own_address(&self, deadline: Duration) -> Result<IpNet, ApiError> {
        let key = bridge_key(&self.settings.bridge)?;
        Ok(self.ipam.allocate(key, None, None, deadline).await?)
    }

    /// The caller has the lock.
    async fn set_gateway(&self, address: IpNet) -> Result<Vec<IpNet>, ApiError> {
        let addresses = vec![address];
        let (host, wanted) = (Arc::clone(&self.host), addresses.clone());
        let set = tokio::task::spawn_blocking(move || lock(&host).set_addresses(wanted)).await;
        match set {
            Ok(Ok(())) => {
                tracing::info!(%address, bridge = self.settings.bridge, "the bridge has its address");
                self.tell_own_address(address);
                self.gateways.send_replace(addresses.clone());
                Ok(addresses)
            }
            Ok(Err(error)) => Err(ApiError::internal(
                format!(
                    "the bridge {} does not take its address: {error:#}",
                    self.settings.bridge
                ),
                "see the router's log",
            )),
            Err(error) => Err(ApiError::internal(format!("a task failed: {error}"), "")),
        }
    }

    /// Gives the bridge another address if its own belongs to another node by now, because this
    /// node was declared gone and came back. While a pod is here the bridge keeps it, because the
    /// pod's default route leads there.
    ///
    /// # Errors
    /// The old address cannot be released, or a new one cannot be had in this time:
    /// [`Node::ensure_gateway`] tries again.
    pub async fn renew_gateway(&self, deadline: Duration) -> Result<(), ApiError> {
        {
            let _one_at_a_time = self.gateway_lock.lock().await;
            let key = bridge_key(&self.settings.bridge)?;
            let ipam = self.ipam.status().await?;
            let holder = key.to_string();
            let lost = ipam.estranged.iter().any(|held| held.holder == holder);
            let mut holders = ipam.allocations.iter().map(|held| &held.container_id);
            // The router's own have a colon.
            if !lost || holders.any(|id| !id.contains(':')) {
                return Ok(());
            }
            {
                let attachments = lock(&self.attachments);
                if attachments.iter().next().is_some() {
                    return Ok(());
                }
                self.gateways.send_replace(Vec::new());
            }
            let released = self.ipam.release(key).await?;
            tracing::info!(?released, "the bridge gives up its address");
        }
        self.ensure_gateway(deadline).await.map(|_| ())
    }

    /// Lets the data path answer pods in the bridge's name.
    fn tell_own_address(&self, address: IpNet) {
        let v4 = match address.addr() {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        };
        if let Some(datapath) = &*lock(&self.datapath) {
            datapath.set_own(OwnAddress {
                mac: self.facts.bridge_mac,
                v4,
            });
        }
    }
}
