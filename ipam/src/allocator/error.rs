//! Why an address was not given. The text says what is wrong, `remedy` what to do about it.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::PeerName;

use super::AllocationKey;
use crate::range::Universe;

/// Why [`super::Allocator::allocate`] or [`super::Allocator::claim`] gave nothing. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Nobody owns anything yet.
    #[error("range {range} is not divided among nodes yet")]
    Undecided {
        /// The universe.
        range: Universe,
    },
    /// The range is divided, and this node has no part of it.
    #[error(
        "node {me} owns no part of {range}, which is divided among {}",
        some(owners)
    )]
    NothingOwned {
        /// This node.
        me: PeerName,
        /// The universe.
        range: Universe,
        /// Who owns it.
        owners: Vec<PeerName>,
    },
    /// This node has no part of the subnet.
    #[error("node {me} owns no address of subnet {subnet}")]
    SubnetOfPeers {
        /// This node.
        me: PeerName,
        /// The subnet asked for.
        subnet: IpNet,
    },
    /// All addresses are in use.
    #[error(
        "all {mine} addresses of {subnet} that this node owns are in use ({elsewhere} are owned by other nodes)"
    )]
    Full {
        /// The subnet asked for, or the universe.
        subnet: IpNet,
        /// Hosts in it that this node owns.
        mine: u128,
        /// Hosts in it that it does not own.
        elsewhere: u128,
    },
    /// The subnet is not a part of the range.
    #[error("subnet {subnet} is not inside the range {range}")]
    SubnetOutside {
        /// What was asked for.
        subnet: IpNet,
        /// The universe.
        range: Universe,
    },
    /// Bits are set behind the prefix.
    #[error("subnet {subnet} has bits set behind its prefix")]
    SubnetHostBits {
        /// What was asked for.
        subnet: IpNet,
        /// The network it lies in.
        network: IpNet,
    },
    /// No room for hosts.
    #[error("subnet {subnet} has no room for hosts beside its reserved first and last address")]
    SubnetTooSmall {
        /// What was asked for.
        subnet: IpNet,
        /// Longest prefix of this family that has room.
        longest: u8,
    },
    /// The address is not a part of the subnet.
    #[error("address {address} is not inside {subnet}")]
    AddressOutside {
        /// What was asked for.
        address: IpAddr,
        /// The subnet asked for, or the universe.
        subnet: IpNet,
    },
    /// First or last address of the subnet or of the range.
    #[error("address {address} is reserved, as the first or last of {subnet} or of the range")]
    AddressReserved {
        /// What was asked for.
        address: IpAddr,
        /// The subnet asked for, or the universe.
        subnet: IpNet,
    },
    /// Another peer owns the address.
    #[error("address {address} is owned by node {owner}, which has not given it")]
    AddressOfPeer {
        /// What was asked for.
        address: IpAddr,
        /// Who may hand it out.
        owner: PeerName,
    },
    /// This node owns the address, and another may still hold it.
    #[error("address {address} is withheld: another node may still hold it")]
    AddressWithheld {
        /// What was asked for.
        address: IpAddr,
    },
    /// This node has started, and has not yet heard what happened to its space meanwhile.
    #[error(
        "node {me} has not heard from another node since it started, and its space may have been taken over: waiting for {}",
        some(waiting)
    )]
    NotAdmitted {
        /// This node.
        me: PeerName,
        /// One of these that is admitted itself, or all of them.
        waiting: Vec<PeerName>,
    },
    /// This node has taken over space, and others have not yet said that they know.
    #[error(
        "the space that node {me} took over is not confirmed yet: waiting for {}",
        some(waiting)
    )]
    Unconfirmed {
        /// This node.
        me: PeerName,
        /// All of these have to.
        waiting: Vec<PeerName>,
    },
    /// Nothing is decided, and the settings ask for an agreement.
    #[error("range {range} is not divided yet: {waiting}")]
    Undivided {
        /// The universe.
        range: Universe,
        /// What for.
        waiting: String,
    },
    /// Another container has the address.
    #[error("address {address} is in use by {by}")]
    AddressInUse {
        /// What was asked for.
        address: IpAddr,
        /// Who has it.
        by: AllocationKey,
    },
    /// The same key has another address in this subnet.
    #[error("{key} has {has} already, not {wanted}")]
    HoldsAnother {
        /// Who asked.
        key: AllocationKey,
        /// What it has.
        has: IpNet,
        /// What it asked for.
        wanted: IpAddr,
    },
}

impl AllocateError {
    /// What whoever reads the error can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Undecided { .. } => {
                "start every node with the same --ipam-init seed=NODE,NODE,.. \
                that names the first nodes"
                    .to_owned()
            }
            Self::NothingOwned { .. } => {
                "connect it to a node that has free addresses (weft status ipam)".to_owned()
            }
            Self::SubnetOfPeers { .. } => {
                "ask on a node that owns a part of it (weft status), or ask for another subnet"
                    .to_owned()
            }
            Self::Full { .. } => "delete containers that are not needed, or start the cluster \
                with a larger --range"
                .to_owned(),
            Self::SubnetOutside { range, .. } => format!("ask for a subnet of {range}"),
            Self::SubnetHostBits { network, .. } => format!("write {network}"),
            Self::SubnetTooSmall { longest, .. } => {
                format!("use a prefix of /{longest} or shorter")
            }
            Self::AddressOutside { subnet, .. } => format!("ask for an address of {subnet}"),
            Self::AddressReserved { .. } => "ask for another address".to_owned(),
            Self::AddressOfPeer { owner, .. } => {
                format!(
                    "see on {owner} whether a container has it (weft ps), and that both are \
                    connected; or ask for another address"
                )
            }
            Self::AddressWithheld { .. } => {
                "ask for another address, or try again later".to_owned()
            }
            Self::NotAdmitted { .. } => {
                "connect it to one that hands out addresses, or start them all; weft rmpeer those \
                that are gone for good"
                    .to_owned()
            }
            Self::Unconfirmed { .. } => {
                "connect it to them; weft rmpeer those that are gone for good".to_owned()
            }
            Self::Undivided { .. } => "start them, or use --ipam-init seed=NODE,NODE,..".to_owned(),
            Self::AddressInUse { by, .. } => format!("delete {by}, or ask for another address"),
            Self::HoldsAnother { .. } => {
                "release it first (CNI DEL), or ask without naming an address".to_owned()
            }
        }
    }
}

/// Why stored allocations do not fit together. Only a fault of the store can cause this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// An address that the ring does not divide.
    #[error("stored address {address} is not inside the stored range {range}")]
    Outside {
        /// Which address.
        address: IpAddr,
        /// The universe.
        range: Universe,
    },
    /// One address, two containers.
    #[error("stored address {address} belongs to {first} and to {second}")]
    Twice {
        /// Which address.
        address: IpAddr,
        /// The one.
        first: AllocationKey,
        /// The other.
        second: AllocationKey,
    },
    /// An address both in use and released.
    #[error("stored address {address} is held down, and in use by {key}")]
    ReleasedInUse {
        /// Which address.
        address: IpAddr,
        /// Who has it.
        key: AllocationKey,
    },
}

/// The first few names of a list that can be long.
pub(crate) fn some(names: &[PeerName]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(PeerName::as_str).collect();
    let more = names.len().saturating_sub(SHOWN);
    let list = shown.join(", ");
    if more == 0 {
        list
    } else {
        format!("{list} and {more} more")
    }
}
