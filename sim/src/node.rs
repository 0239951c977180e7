//! One machine with a router on it.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::{ConditionChange, ConnId, Hello, Input, LinkChange, Mesh, Path, Target};
use wire::{PeerId, PeerName, Vni};

use crate::data::Datagram;
use crate::network::Side;
use crate::sealing::Sealing;
use crate::traffic::Traffic;
use crate::underlay::{SLEEVE_PORT, VXLAN_PORT};

/// TCP port of the simulated control connections.
const CONTROL_PORT: u16 = 6783;

/// A machine.
#[derive(Debug)]
pub struct Node {
    /// How its router introduces itself; `run` changes with each start.
    pub hello: Hello,
    /// What its operator named.
    pub targets: Vec<Target>,
    /// Addresses that an earlier run of its router knew.
    pub remembered: Vec<SocketAddr>,
    /// Its router, while one runs.
    pub mesh: Option<Mesh>,
    /// What its data path has been told and has not been told otherwise.
    pub links: BTreeMap<PeerId, Link>,
    /// Peers that messages get to, as the other parts of its router were told, and a hash of their
    /// names.
    pub reachable: BTreeMap<PeerId, u64>,
    /// All changes of links since the start of the simulation.
    pub changes: Vec<(Duration, LinkChange)>,
    /// Conditions that came and went.
    pub conditions: Vec<ConditionChange>,
    /// Gossip received: sender, channel, bytes.
    pub gossip: Vec<(PeerName, u8, Vec<u8>)>,
    /// What its router sent.
    pub traffic: Traffic,
    pub(crate) address: Ipv4Addr,
    /// What its clock shows at the start of the simulation, in milliseconds.
    pub(crate) clock: u64,
    /// Whether the machine itself runs, which then at least refuses connections.
    pub(crate) powered: bool,
    /// The process is stopped: what happens to it waits.
    pub(crate) stopped: bool,
    /// Its operator's commands that wait.
    pub(crate) inbox: VecDeque<Input>,
    /// Datagrams that wait.
    pub(crate) buffer: VecDeque<Datagram>,
    /// Bytes per second that it reads of each connection, if it is slow.
    pub(crate) reads: Option<u32>,
    /// Whether probes judge its links, and not the control path.
    pub(crate) judges: bool,
    pub(crate) conns: BTreeMap<ConnId, (u64, Side)>,
    pub(crate) accepted: u64,
    /// The earliest wake-up that is on its way.
    pub(crate) wake: Option<Duration>,
    /// Frames sent to and received from each peer since the last report to the mesh.
    pub(crate) crossed: BTreeMap<PeerId, (u64, u64)>,
    /// Whether a report is on its way.
    pub(crate) reports: bool,
    /// The number of its key pair, if it seals, and the sessions of its router.
    pub(crate) key: u64,
    pub(crate) sealing: Option<Sealing>,
}

/// What the data path knows of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: PeerName,
    /// The way that frames take.
    pub path: Path,
    /// Where sleeve reaches it directly.
    pub sleeve: Option<SocketAddr>,
}

impl Node {
    pub(crate) fn new(number: usize, hello: Hello) -> Self {
        Self {
            hello,
            targets: Vec::new(),
            remembered: Vec::new(),
            mesh: None,
            links: BTreeMap::new(),
            reachable: BTreeMap::new(),
            changes: Vec::new(),
            conditions: Vec::new(),
            gossip: Vec::new(),
            traffic: Traffic::default(),
            address: address(number),
            clock: 1_000_000,
            powered: true,
            stopped: false,
            inbox: VecDeque::new(),
            buffer: VecDeque::new(),
            reads: None,
            judges: true,
            conns: BTreeMap::new(),
            accepted: 0,
            wake: None,
            crossed: BTreeMap::new(),
            reports: false,
            key: 0,
            sealing: None,
        }
    }

    /// Where it accepts control connections.
    pub fn control(&self) -> SocketAddr {
        SocketAddr::from((self.address, CONTROL_PORT))
    }

    /// Connections that its router has.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Whether a router runs on it and is part of the network.
    pub fn is_in(&self) -> bool {
        self.mesh.as_ref().is_some_and(|mesh| !mesh.has_left())
    }

    /// Does to the links what the data path would do.
    pub(crate) fn apply(&mut self, change: LinkChange) {
        match change {
            LinkChange::Up {
                id,
                name,
                path,
                sleeve,
                ..
            } => {
                self.links.insert(id, Link { name, path, sleeve });
            }
            LinkChange::Down { id, .. } | LinkChange::Left { id, .. } => {
                self.links.remove(&id);
            }
        }
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
        vxlan_port: VXLAN_PORT,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: "sim".to_owned(),
        sleeve_port: SLEEVE_PORT,
        seen: None,
    }
}

/// The machine's address, of 10.0.0.0/8.
pub(crate) fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).expect("fewer nodes than addresses");
    Ipv4Addr::from_bits((10 << 24) + 1 + number)
}

/// The machine of an address.
pub(crate) fn machine_at(ip: IpAddr) -> Option<usize> {
    let IpAddr::V4(ip) = ip else { return None };
    let number = ip.to_bits().checked_sub((10 << 24) + 1)?;
    usize::try_from(number)
        .ok()
        .filter(|number| *number < 1 << 24)
}
