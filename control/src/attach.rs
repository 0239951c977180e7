//! Attachments: a pod's interface and the addresses it holds.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::Mac;

/// Asks for the addresses of one interface of one container.
///
/// Asking again for the same `container_id` and `ifname` returns the same addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The runtime's identifier (`CNI_CONTAINERID`).
    pub container_id: String,
    /// Name of the interface inside the container (`CNI_IFNAME`).
    pub ifname: String,
    /// Path of the container's network namespace, for display and reconciliation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Name of the CNI network, which [`GcRequest`] is confined to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The Kubernetes pod, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// Takes the address from this part of the range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<IpNet>,
    /// Takes exactly this address, or fails with `conflict` if it cannot be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The Ethernet address that the container's interface is going to have, if the caller makes
    /// a veth on the bridge: what comes from another one is not from this container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Addresses that somebody else gave (another IPAM plugin), at most
    /// [`MAX_FOREIGN_ADDRESSES`](Self::MAX_FOREIGN_ADDRESSES). The router gives none of its own
    /// then and only takes note.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
}

impl AttachRequest {
    /// More addresses than an interface of a pod has use for.
    pub const MAX_FOREIGN_ADDRESSES: usize = 16;
}

/// A Kubernetes pod, as kubelet names it in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`; not every runtime gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What an attached interface is to be configured with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Addresses with the prefix length of the whole range (`10.32.0.7/12`): the range is on-link.
    pub addresses: Vec<IpNet>,
    /// The bridge's own address of each family, for the default route.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// The ranges that all pods of the overlay share, one of each family.
    pub range: Vec<IpNet>,
    /// MTU of the pod's interface, in bytes of IP packet.
    pub mtu: u16,
    /// Name of the bridge that the host side joins.
    pub bridge: String,
}

/// Releases the addresses of one interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetachRequest {
    /// The runtime's identifier (`CNI_CONTAINERID`).
    pub container_id: String,
    /// Name of the interface inside the container (`CNI_IFNAME`).
    pub ifname: String,
}

/// Answer to [`DetachRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Detached {
    /// What was free to be handed out again; empty if the attachment was unknown.
    #[serde(default)]
    pub released: Vec<IpNet>,
}

/// Names one attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttachmentRef {
    /// The runtime's identifier (`CNI_CONTAINERID`).
    pub container_id: String,
    /// Name of the interface inside the container (`CNI_IFNAME`).
    pub ifname: String,
}

impl AttachmentRef {
    /// Longest `container_id`, in bytes: with it the [`alias`](Self::alias) still fits in the
    /// kernel's 255 bytes (`IFALIASZ`). Runtimes use 64 to 76.
    pub const MAX_CONTAINER_ID: usize = 200;

    /// Names an attachment.
    pub fn new(container_id: impl Into<String>, ifname: impl Into<String>) -> Self {
        Self {
            container_id: container_id.into(),
            ifname: ifname.into(),
        }
    }

    /// Name of the host's side of the veth: `vw` and 11 hexadecimal digits, 13 of the 15 bytes
    /// that an interface name may have. The same attachment always gets the same name, so that
    /// whoever cleans up needs no record of what was made.
    pub fn host_veth(&self) -> String {
        format!("vw{:011x}", self.digest() >> 20)
    }

    /// What the host's side of the veth carries as its alias, for people who look at it and as
    /// the proof that it is this attachment's and may be removed.
    pub fn alias(&self) -> String {
        format!("weft:{self}")
    }

    /// The Ethernet address of the container's interface, unless it is to have a certain one. The
    /// same attachment always gets the same, so that the router knows it before the interface is
    /// there.
    pub fn mac(&self) -> Mac {
        let [_, _, a, b, c, d, e, f] = self.digest().to_be_bytes();
        Mac::local([a, b, c, d, e, f])
    }

    /// FNV-1a, 64 bits. Not a defence against chosen identifiers, which runtimes do not take
    /// from users; two that meet are told apart by their alias.
    pub(crate) fn digest(&self) -> u64 {
        let bytes = self
            .container_id
            .bytes()
            .chain([b'/'])
            .chain(self.ifname.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl fmt::Display for AttachmentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container_id, self.ifname)
    }
}

impl From<DetachRequest> for AttachmentRef {
    fn from(request: DetachRequest) -> Self {
        Self {
            container_id: request.container_id,
            ifname: request.ifname,
        }
    }
}

impl From<AttachmentRef> for DetachRequest {
    fn from(attachment: AttachmentRef) -> Self {
        Self {
            container_id: attachment.container_id,
            ifname: attachment.ifname,
        }
    }
}

/// Releases the addresses of every attachment that is not listed (CNI 1.1.0 `GC`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GcRequest {
    /// Only attachments that were made for this network are judged; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The attachments that are still valid.
    pub keep: Vec<AttachmentRef>,
}

/// Answer to [`GcRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Collected {
    /// What was released; the caller removes the interfaces.
    #[serde(default)]
    pub released: Vec<ReleasedAttachment>,
}

/// An attachment that a collection removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedAttachment {
    /// Which attachment.
    #[serde(flatten)]
    pub attachment: AttachmentRef,
    /// The addresses that it held.
    pub addresses: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_fit() {
        let attachment = AttachmentRef::new("4f0e2c", "eth0");
        // FNV-1a of "4f0e2c/eth0", computed apart.
        assert_eq!(attachment.host_veth(), "vw9f982f794ab");
        assert_eq!(attachment.host_veth().len(), 13);
        assert_eq!(attachment.alias(), "weft:4f0e2c/eth0");
        assert!(attachment.mac().is_unicast());
        assert_ne!(attachment.mac(), AttachmentRef::new("4f0e2c", "eth1").mac());
        assert_ne!(
            attachment.host_veth(),
            AttachmentRef::new("4f0e2c", "eth1").host_veth()
        );
        let longest = "x".repeat(AttachmentRef::MAX_CONTAINER_ID);
        assert!(AttachmentRef::new(longest, "x".repeat(15)).alias().len() < 256);
    }

    #[test]
    fn attachment_is_as_documented() {
        let attachment: Attachment = serde_json::from_str(
            r#"{"addresses":["10.32.0.7/12"],"gateways":["10.32.0.1"],"range":["10.32.0.0/12"],
                "mtu":1450,"bridge":"weft","later":"ignored"}"#,
        )
        .unwrap();
        assert_eq!(
            attachment.addresses,
            ["10.32.0.7/12".parse::<IpNet>().unwrap()]
        );
        assert_eq!((attachment.mtu, attachment.bridge.as_str()), (1450, "weft"));
    }

    #[test]
    fn released_attachment_is_flat() {
        let released = ReleasedAttachment {
            attachment: AttachmentRef::new("c", "eth0"),
            addresses: vec!["10.32.0.7/12".parse().unwrap()],
        };
        let text = r#"{"container_id":"c","ifname":"eth0","addresses":["10.32.0.7/12"]}"#;
        assert_eq!(serde_json::to_string(&released).unwrap(), text);
        assert_eq!(
            serde_json::from_str::<ReleasedAttachment>(text).unwrap(),
            released
        );
    }
}
