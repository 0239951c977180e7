//! One machine with a router on it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::{ConditionChange, ConnId, Hello, Input, LinkChange, Mesh, Target};
use wire::{PeerId, PeerName, Vni};

use crate::network::Side;

/// TCP port of the simulated control connections.
const CONTROL_PORT: u16 = 6783;

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// How its router introduces itself; `run` changes with each start.
    pub hello: Hello,
    /// What its operator named.
    pub targets: Vec<Target>,
    /// Its router, while one runs.
    pub mesh: Option<Mesh>,
    /// What its data path has been told and has not been told otherwise: name and endpoint of each
    /// peer that it sends to.
    pub links: BTreeMap<PeerId, (PeerName, SocketAddr)>,
    /// Peers that messages get to, as the other parts of its router were told, and their names.
    pub reachable: BTreeMap<PeerId, PeerName>,
    /// All changes of links since the start of the simulation.
    pub changes: Vec<(Duration, LinkChange)>,
    /// Conditions that came and went.
    pub conditions: Vec<ConditionChange>,
    /// Gossip received: sender, channel, bytes.
    pub gossip: Vec<(PeerName, u8, Vec<u8>)>,
    pub(crate) address: Ipv4Addr,
    /// What its clock shows at the start of the simulation, in milliseconds.
    pub(crate) clock: u64,
    /// Whether the machine itself runs, which then at least refuses connections.
    pub(crate) powered: bool,
    /// The process is stopped: what happens to it waits.
    pub(crate) stopped: bool,
    pub(crate) inbox: VecDeque<Input>,
    pub(crate) conns: BTreeMap<ConnId, (u64, Side)>,
    pub(crate) accepted: u64,
    /// The earliest wake-up that is on its way.
    pub(crate) wake: Option<Duration>,
}

impl Node {
    pub(crate) fn new(number: usize, hello: Hello) -> Self {
        Self {
            hello,
            targets: Vec::new(),
            mesh: None,
            links: BTreeMap::new(),
            reachable: BTreeMap::new(),
            changes: Vec::new(),
            conditions: Vec::new(),
            gossip: Vec::new(),
            address: address(number),
            clock: 1_000_000,
            powered: true,
            stopped: false,
            inbox: VecDeque::new(),
            conns: BTreeMap::new(),
            accepted: 0,
            wake: None,
        }
    }

    /// Where it accepts control connections.
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((self.address, CONTROL_PORT))
    }

    /// Whether a router runs on it and is part of the network.
    pub fn is_in(&self) -> bool {
        self.mesh.as_ref().is_some_and(|mesh| !mesh.has_left())
    }

    /// Does to the links what the data path would do.
    pub(crate) fn apply(&mut self, change: LinkChange, now: Duration) {
        match &change {
            LinkChange::Up { id, name, path, .. } => {
                self.links.insert(*id, (name.clone(), path.endpoint));
            }
            LinkChange::Down { id, .. } | LinkChange::Left { id, .. } => {
                self.links.remove(id);
            }
        }
        self.changes.push((now, change));
    }
}

/// How the node of a number introduces itself.
pub fn hello(number: usize, identity: u64) -> Hello {
    let id = identity.to_be_bytes();
    let mut public_key = [0; 32];
    public_key[..8].copy_from_slice(&id);
    Hello {
        id: PeerId(id),
        name: format!("node-{number}")
            .parse()
            .expect("letters, digits and a hyphen"),
        public_key,
        run: 0,
        control_port: CONTROL_PORT,
        vxlan_port: 6784,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: "sim".to_owned(),
        sleeve_port: 6783,
        seen: None,
    }
}

/// The machine's address, of 10.0.0.0/8.
fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("fewer nodes than addresses");
    Ipv4Addr::from_bits((10 << 24) + 1 + number)
}

/// The machine of an address.
pub(crate) fn machine(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let number = address.ip().to_bits().checked_sub((10 << 24) + 1)?;
    (address.port() == CONTROL_PORT)
        .then(|| usize::try_from(number).ok())
        .flatten()
}
