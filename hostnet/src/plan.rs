//! The node's bridge as a plan: what it should be and what it is make a list of steps, which is data.
//!
//! [`observe`] looks, [`bridge_plan`] and [`teardown_plan`] decide without touching anything, and
//! [`apply`] does it. A plan made of what was just applied is empty. What weft makes carries its mark
//! in the interface's alias, `weft:` and the node's name; without the mark, nothing is ever deleted,
//! and nothing but weft's own addresses and port is added.

use std::fmt;

use ipnet::IpNet;
use wire::Mac;

use crate::link::{BridgeOptions, Link, LinkKind};
use crate::netlink::{Netlink, NetlinkError, check_name};

/// How the node's bridge should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeSpec {
    /// Interface name.
    pub name: String,
    /// Whose it is: the node's name, which becomes the mark.
    pub owner: String,
    /// Its Ethernet address, which stays the same when ports come and go. `None` keeps whatever the
    /// bridge has.
    pub mac: Option<Mac>,
    /// Largest layer 3 packet of bridge and TAP, in bytes.
    pub mtu: u16,
    /// Addresses of the bridge's own interface.
    pub addresses: Vec<IpNet>,
    /// The port that leads to the router.
    pub tap: Option<TapSpec>,
    /// Use a bridge of this name although it is not marked as ours.
    pub adopt: bool,
}

/// How the TAP port should be. The TAP itself comes and goes with the process that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapSpec {
    /// Interface name.
    pub name: String,
    /// Length of its transmit queue, in packets.
    pub tx_queue_len: u32,
}

impl BridgeSpec {
    /// The alias of what this node made.
    pub fn mark(&self) -> String {
        format!("{MARK}{}", self.owner)
    }
}

/// What is there, of what a plan is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// The interface with the bridge's name.
    pub bridge: Option<Link>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The interface with the TAP's name.
    pub tap: Option<Link>,
}

/// Steps to be done in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Each one change of the kernel's state.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Whether everything is as it should be.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// One change. Interfaces go by name, because one may be made by an earlier step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the variants say")]
pub enum Step {
    /// Make a bridge, down.
    AddBridge {
        name: String,
        mac: Option<Mac>,
        mtu: u16,
        alias: String,
    },
    /// Set an Ethernet address.
    SetMac { link: String, mac: Mac },
    /// Set an MTU in bytes.
    SetMtu { link: String, mtu: u16 },
    /// Set the length of a transmit queue in packets.
    SetTxQueueLen { link: String, packets: u32 },
    /// Mark an interface.
    SetAlias { link: String, alias: String },
    /// Keep the kernel from giving an interface a link-local address.
    NoLinkLocal { link: String },
    /// Make an interface a port of a bridge.
    SetMaster { link: String, bridge: String },
    /// Bring an interface up.
    SetUp { link: String },
    /// Add an address.
    AddAddress { link: String, address: IpNet },
    /// Take an address away.
    DelAddress { link: String, address: IpNet },
    /// Delete an interface.
    DeleteLink { link: String },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge { name, mtu, .. } => write!(f, "add bridge {name} with MTU {mtu}"),
            Self::SetMac { link, mac } => write!(f, "set the address of {link} to {mac}"),
            Self::SetMtu { link, mtu } => write!(f, "set the MTU of {link} to {mtu}"),
            Self::SetTxQueueLen { link, packets } => {
                write!(f, "set the queue length of {link} to {packets} packets")
            }
            Self::SetAlias { link, alias } => write!(f, "mark {link} as {alias}"),
            Self::NoLinkLocal { link } => write!(f, "keep {link} without a link-local address"),
            Self::SetMaster { link, bridge } => write!(f, "put {link} on bridge {bridge}"),
            Self::SetUp { link } => write!(f, "bring up {link}"),
            Self::AddAddress { link, address } => write!(f, "add {address} to {link}"),
            Self::DelAddress { link, address } => write!(f, "delete {address} of {link}"),
            Self::DeleteLink { link } => write!(f, "delete {link}"),
        }
    }
}

/// Why the bridge cannot become what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Something else has the bridge's name.
    #[error("{name} is {kind}, not a bridge: choose another name with --bridge, or delete it")]
    NotABridge {
        /// The interface.
        name: String,
        /// What it is.
        kind: String,
    },
    /// A bridge that weft did not make.
    #[error(
        "bridge {name} exists and is not weft's: choose another name with --bridge, or delete it"
    )]
    Foreign {
        /// The interface.
        name: String,
    },
    /// A bridge of another node's router, in the same namespace.
    #[error(
        "bridge {name} belongs to node {owner}: choose another name with --bridge, or run as that node with --name"
    )]
    OtherNode {
        /// The interface.
        name: String,
        /// The node in its mark.
        owner: String,
    },
    /// Something else has the TAP's name.
    #[error("{name} is {kind}, not a TAP: choose another name with --tap, or delete it")]
    NotATap {
        /// The interface.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The TAP must be open before it becomes a port.
    #[error("TAP {name} does not exist: open it before the plan is made")]
    NoTap {
        /// The interface.
        name: String,
    },
}

/// Looks at what a plan for this bridge is about.
pub fn observe(netlink: &mut Netlink, spec: &BridgeSpec) -> Result<Observed, NetlinkError> {
    let bridge = netlink.link(&spec.name)?;
    let addresses = match &bridge {
        Some(link) => netlink.addresses(link.index)?,
        None => Vec::new(),
    };
    let tap = match &spec.tap {
        Some(tap) => netlink.link(&tap.name)?,
        None => None,
    };
    Ok(Observed {
        bridge,
        addresses,
        tap,
    })
}

/// The steps from what is there to what should be.
///
/// A bridge of ours is brought into line in everything; its addresses that are not wanted go, except
/// link-local ones, which the kernel adds. An adopted bridge keeps its Ethernet address, MTU and
/// other addresses.
pub fn bridge_plan(observed: &Observed, spec: &BridgeSpec) -> Result<Plan, PlanError> {
    let mut steps = Vec::new();
    let name = || spec.name.clone();
    let (mut has, mut index, mut up) = (&[][..], None, false);
    match (&observed.bridge, ownership(observed, spec)?) {
        (Some(bridge), ownership) => {
            (has, index, up) = (&observed.addresses, Some(bridge.index), bridge.up);
            if ownership == Ownership::Ours {
                if let Some(mac) = spec.mac.filter(|mac| *mac != bridge.mac) {
                    steps.push(Step::SetMac { link: name(), mac });
                }
                if bridge.mtu != spec.mtu.into() {
                    steps.push(Step::SetMtu {
                        link: name(),
                        mtu: spec.mtu,
                    });
                }
                for address in has
                    .iter()
                    .filter(|a| !is_link_local(a) && !spec.addresses.contains(a))
                {
                    steps.push(Step::DelAddress {
                        link: name(),
                        address: *address,
                    });
                }
            }
        }
        (None, _) => {
            steps.push(Step::AddBridge {
                name: name(),
                mac: spec.mac,
                mtu: spec.mtu,
                alias: spec.mark(),
            });
        }
    }
    // Ports before addresses: the bridge announces and answers for them as soon as it has both.
    if let Some(tap) = &spec.tap {
        tap_steps(observed, spec, tap, index, &mut steps)?;
    }
    for (i, address) in spec.addresses.iter().enumerate() {
        if !has.contains(address) && !spec.addresses[..i].contains(address) {
            steps.push(Step::AddAddress {
                link: name(),
                address: *address,
            });
        }
    }
    if !up {
        steps.push(Step::SetUp { link: name() });
    }
    Ok(Plan { steps })
}

/// The steps that take away what weft made, and no more: a bridge of ours goes, with all its ports
/// off; of an adopted one only weft's addresses. The TAP goes with the process that has it open.
pub fn teardown_plan(observed: &Observed, spec: &BridgeSpec) -> Plan {
    let link = || spec.name.clone();
    let steps = match &observed.bridge {
        Some(bridge) if bridge.kind == Some(LinkKind::Bridge) => {
            if bridge.alias.as_ref() == Some(&spec.mark()) {
                vec![Step::DeleteLink { link: link() }]
            } else if spec.adopt {
                let ours = observed
                    .addresses
                    .iter()
                    .filter(|a| spec.addresses.contains(a));
                ours.map(|a| Step::DelAddress {
                    link: link(),
                    address: *a,
                })
                .collect()
            } else {
                Vec::new()
            }
        }
        _ => Vec::new(),
    };
    Plan { steps }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused it.
    #[error("{step}")]
    Kernel {
        /// What was to be done.
        step: Box<Step>,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// The interface went away meanwhile.
    #[error("{step}: interface {link} does not exist any more")]
    Gone {
        /// What was to be done.
        step: Box<Step>,
        /// The interface.
        link: String,
    },
}

/// Does the steps in order and stops at the first that fails: a new plan goes on from there.
pub fn apply(netlink: &mut Netlink, plan: &Plan) -> Result<(), ApplyError> {
    plan.steps
        .iter()
        .try_for_each(|step| apply_step(netlink, step))
}

/// Does as many of the steps as it can, for a teardown, and returns what failed.
pub fn apply_all(netlink: &mut Netlink, plan: &Plan) -> Vec<ApplyError> {
    plan.steps
        .iter()
        .filter_map(|step| apply_step(netlink, step).err())
        .collect()
}

/// Whose a bridge is that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ownership {
    Ours,
    Adopted,
}

/// Beginning of every mark.
const MARK: &str = "weft:";

fn ownership(observed: &Observed, spec: &BridgeSpec) -> Result<Ownership, PlanError> {
    let Some(bridge) = &observed.bridge else {
        return Ok(Ownership::Ours);
    };
    let name = spec.name.clone();
    if bridge.kind != Some(LinkKind::Bridge) {
        return Err(PlanError::NotABridge {
            name,
            kind: describe(bridge),
        });
    }
    match bridge.alias.as_deref() {
        Some(alias) if alias == spec.mark() => Ok(Ownership::Ours),
        _ if spec.adopt => Ok(Ownership::Adopted),
        alias => Err(match alias.and_then(|alias| alias.strip_prefix(MARK)) {
            Some(owner) => PlanError::OtherNode {
                name,
                owner: owner.to_owned(),
            },
            None => PlanError::Foreign { name },
        }),
    }
}

fn tap_steps(
    observed: &Observed,
    spec: &BridgeSpec,
    wanted: &TapSpec,
    bridge: Option<u32>,
    steps: &mut Vec<Step>,
) -> Result<(), PlanError> {
    let link = || wanted.name.clone();
    let Some(tap) = &observed.tap else {
        return Err(PlanError::NoTap { name: link() });
    };
    if tap.kind != Some(LinkKind::Tun) {
        return Err(PlanError::NotATap {
            name: link(),
            kind: describe(tap),
        });
    }
    if tap.alias.as_ref() != Some(&spec.mark()) {
        steps.push(Step::SetAlias {
            link: link(),
            alias: spec.mark(),
        });
    }
    // A port sends nothing of its own: what it sent would reach every peer as from one more machine.
    if tap.link_local {
        steps.push(Step::NoLinkLocal { link: link() });
    }
    // Before it joins, so that the bridge never sees a smaller port.
    if tap.mtu != spec.mtu.into() {
        steps.push(Step::SetMtu {
            link: link(),
            mtu: spec.mtu,
        });
    }
    if tap.tx_queue_len != wanted.tx_queue_len {
        steps.push(Step::SetTxQueueLen {
            link: link(),
            packets: wanted.tx_queue_len,
        });
    }
    if bridge.is_none() || tap.master != bridge {
        steps.push(Step::SetMaster {
            link: link(),
            bridge: spec.name.clone(),
        });
    }
    if !tap.up {
        steps.push(Step::SetUp { link: link() });
    }
    Ok(())
}

fn apply_step(netlink: &mut Netlink, step: &Step) -> Result<(), ApplyError> {
    let kernel = |source| ApplyError::Kernel {
        step: Box::new(step.clone()),
        source,
    };
    let mut index = |link: &str| match netlink.link(link) {
        Ok(Some(found)) => Ok(found.index),
        Ok(None) => Err(ApplyError::Gone {
            step: Box::new(step.clone()),
            link: link.to_owned(),
        }),
        Err(e) => Err(kernel(e)),
    };
    match step {
        Step::AddBridge {
            name,
            mac,
            mtu,
            alias,
        } => {
            let options = BridgeOptions {
                mac: *mac,
                mtu: *mtu,
                alias: Some(alias.clone()),
            };
            netlink.add_bridge(name, &options).map(drop)
        }
        Step::SetMac { link, mac } => {
            let index = index(link)?;
            netlink.set_mac(index, *mac)
        }
        Step::SetMtu { link, mtu } => {
            let index = index(link)?;
            netlink.set_mtu(index, *mtu)
        }
        Step::SetTxQueueLen { link, packets } => {
            let index = index(link)?;
            netlink.set_txqlen(index, *packets)
        }
        Step::SetAlias { link, alias } => {
            let index = index(link)?;
            netlink.set_alias(index, alias)
        }
        Step::NoLinkLocal { link } => {
            let index = index(link)?;
            netlink.set_no_link_local(index)
        }
        Step::SetMaster { link, bridge } => {
            let (index, master) = (index(link)?, index(bridge)?);
            netlink.set_master(index, Some(master))
        }
        Step::SetUp { link } => {
            let index = index(link)?;
            netlink.set_up(index)
        }
        Step::AddAddress { link, address } => {
            let index = index(link)?;
            netlink.add_address(index, *address)
        }
        Step::DelAddress { link, address } => {
            let index = index(link)?;
            netlink.del_address(index, *address)
        }
        Step::DeleteLink { link } => match index(link) {
            Ok(index) => netlink.delete_link(index),
            Err(ApplyError::Gone { .. }) => Ok(()),
            Err(e) => return Err(e),
        },
    }
    .map_err(kernel)
}

/// Whether a name can be an interface's, for checks of settings before anything is touched.
pub fn is_valid_name(name: &str) -> bool {
    check_name(name).is_ok()
}

fn is_link_local(address: &IpNet) -> bool {
    matches!(address, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// An interface's kind in words.
fn describe(link: &Link) -> String {
    match &link.kind {
        Some(LinkKind::Bridge) => "a bridge".to_owned(),
        Some(LinkKind::Veth) => "a veth".to_owned(),
        Some(LinkKind::Vxlan) => "a VXLAN device".to_owned(),
        Some(LinkKind::Tun) => "a TUN or TAP".to_owned(),
        Some(LinkKind::Other(kind)) => format!("an interface of kind {kind}"),
        None => "a plain interface".to_owned(),
    }
}
