//! What a container runtime does on one node, over the control socket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use control::{AttachRequest, AttachmentRef, Client};
use ipnet::IpNet;
use mesh::SplitMix64;

use super::ledger::Ledger;

/// Containers of a node at a time: with five nodes three quarters of the range.
const MOST: u64 = 75;
/// Between requests, so that all nodes together keep one CPU busy and not all of them.
const PAUSE: Duration = Duration::from_millis(8);
const IFNAME: &str = "eth0";

/// The runtime of one node.
pub(super) struct Clerk {
    node: usize,
    client: Client,
    ledger: Arc<Ledger>,
    random: SplitMix64,
    /// Containers that run.
    running: BTreeMap<String, IpAddr>,
    /// Containers whose end the router has not been told for certain.
    ended: Vec<String>,
    made: u64,
}

impl Clerk {
    pub(super) fn new(node: usize, client: Client, ledger: Arc<Ledger>, seed: u64) -> Self {
        let random = SplitMix64::new(seed ^ (node as u64 + 1).wrapping_mul(0x9e37_79b9));
        Self {
            node,
            client,
            ledger,
            random,
            running: BTreeMap::new(),
            ended: Vec::new(),
            made: 0,
        }
    }

    /// One request.
    pub(super) fn turn(&mut self) {
        let most = MOST * 2;
        let choice = self.random.below(most);
        if let Some(container) = self.ended.pop() {
            self.release(container);
        } else if choice == 0 {
            self.ask_again();
        } else if choice > self.running.len() as u64 {
            self.begin();
        } else {
            self.end();
        }
        std::thread::sleep(PAUSE);
    }

    /// The machine went down: its containers run no more.
    pub(super) fn containers_died(&mut self) {
        for (container, address) in std::mem::take(&mut self.running) {
            self.ledger.ended(address);
            self.ended.push(container);
        }
    }

    /// Repeats every release that is not certain, and asks for every container's address again.
    pub(super) fn make_certain(&mut self, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        while let Some(container) = self.ended.pop() {
            self.release(container);
            if Instant::now() > end {
                bail!("node {} takes no releases", self.node);
            }
        }
        for (container, address) in &self.running {
            let told = self
                .client
                .attachment(&AttachmentRef::new(container, IFNAME));
            let told = told
                .ok()
                .and_then(|told| told.addresses.first().map(IpNet::addr));
            self.ledger.confirmed(*address, told, container);
        }
        Ok(())
    }

    fn begin(&mut self) {
        self.made += 1;
        let container = format!("node{}-{}", self.node, self.made);
        let request = AttachRequest {
            container_id: container.clone(),
            ifname: IFNAME.to_owned(),
            ..AttachRequest::default()
        };
        let given = self.client.attach(&request);
        match given
            .ok()
            .and_then(|given| given.addresses.first().map(IpNet::addr))
        {
            Some(address) => {
                self.ledger.given(address, self.node, &container);
                self.running.insert(container, address);
            }
            None => {
                // It may have one all the same: as a runtime does, DEL follows.
                self.ledger.failed();
                self.ended.push(container);
            }
        }
    }

    fn end(&mut self) {
        let count = self.running.len() as u64;
        let index = usize::try_from(self.random.below(count.max(1))).unwrap_or(0);
        let Some(container) = self.running.keys().nth(index).cloned() else {
            return;
        };
        if let Some(address) = self.running.remove(&container) {
            // Before the request: when it is answered, another may have the address already.
            self.ledger.ended(address);
        }
        self.release(container);
    }

    fn release(&mut self, container: String) {
        let of = AttachmentRef::new(&container, IFNAME);
        match self.client.detach(&of.into()) {
            Ok(_) => self.ledger.returned(),
            Err(_) => {
                self.ledger.failed();
                self.ended.push(container);
                std::thread::sleep(10 * PAUSE);
            }
        }
    }

    fn ask_again(&mut self) {
        let Some((container, address)) = self.running.first_key_value() else {
            return;
        };
        let request = AttachRequest {
            container_id: container.clone(),
            ifname: IFNAME.to_owned(),
            ..AttachRequest::default()
        };
        match self.client.attach(&request) {
            Ok(told) => {
                let told = told.addresses.first().map(IpNet::addr);
                self.ledger.confirmed(*address, told, container);
            }
            Err(_) => self.ledger.failed(),
        }
    }
}
