//! The node's rules for packets, as tables of nftables (`hostnet::nft`): what pods send is what they
//! are, and what leaves the cluster carries the node's address.
//!
//! Pure: settings and attachments in, tables out. `io::rules_keeper` puts them in place and keeps
//! them there.
//!
//! In the family `bridge`, on what comes in by the veths of pods (`vw*`):
//! - router advertisements are dropped: no pod may give others a route (CVE-2020-13401 and the like);
//! - with the spoof guard, so is what carries an Ethernet address, an IP address or an ARP sender
//!   that is not the pod's. Frames that are neither IP nor ARP are held to the Ethernet address.
//!
//! In the family `inet`:
//! - what goes from the range to anywhere else is masqueraded with random ports: sequential ones
//!   collide under load in conntrack, which loses DNS queries. Traffic among pods never is;
//! - the overlay's own datagrams are not tracked: each would cost a look-up for nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::AttachmentRef;
use hostnet::nft::{
    Base, Chain, ChainKind, Expr, Family, Field, Hook, HookPoint, Meta, Operator, Rule, Set, Table,
    Verdict,
};
use ipnet::IpNet;
use wire::Mac;

/// Counters of the guard, as `weft status` and the metrics name them.
pub const SPOOFED_MAC: &str = "pod_spoofed_mac";
/// See [`SPOOFED_MAC`].
pub const SPOOFED_ADDRESS: &str = "pod_spoofed_address";
/// See [`SPOOFED_MAC`].
pub const ROUTER_ADVERTISEMENT: &str = "pod_router_advertisement";

/// What the rules are made from, beside the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// The bridge, by whose name two routers in one namespace are told apart.
    pub bridge: String,
    /// The overlay's addresses.
    pub range: IpNet,
    /// UDP ports of the data path.
    pub ports: Vec<u16>,
    /// Whether what leaves the range is masqueraded.
    pub masquerade: bool,
    /// Whether pods are held to their addresses.
    pub spoof_guard: bool,
}

/// A pod's interface, as far as rules are about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedPod {
    /// The host's side of the veth.
    pub veth: String,
    /// The only Ethernet address that it may send from.
    pub mac: Mac,
    /// The only IP addresses, link-local ones of IPv6 apart.
    pub addresses: Vec<IpAddr>,
}

impl GuardedPod {
    /// The pod of an attachment.
    pub fn new(of: &AttachmentRef, mac: Mac, addresses: &[IpNet]) -> Self {
        Self {
            veth: of.host_veth(),
            mac,
            addresses: addresses.iter().map(IpNet::addr).collect(),
        }
    }
}

impl RuleSettings {
    /// The name that both tables have.
    pub fn table(&self) -> String {
        match self.bridge.as_str() {
            "weft" => "weft".to_owned(),
            other => format!("weft_{other}"),
        }
    }

    /// The tables as they should be.
    pub fn tables<'a>(&self, pods: impl Iterator<Item = &'a GuardedPod>) -> [Table; 2] {
        [self.guard(pods), self.forwarding()]
    }

    fn guard<'a>(&self, pods: impl Iterator<Item = &'a GuardedPod>) -> Table {
        let mut keys = Keys::default();
        if self.spoof_guard {
            pods.for_each(|pod| keys.add(pod));
        }
        let mut rules = vec![
            rule([Expr::Meta(Meta::InName), is_not(VETH_PREFIX), accept()]),
            rule(
                [
                    is_ipv6(),
                    vec![
                        Expr::Meta(Meta::L4Proto),
                        is(&[ICMPV6]),
                        load(Base::Transport, 0, 1),
                        is(&[ROUTER_ADVERT]),
                    ],
                    drop_as(ROUTER_ADVERTISEMENT),
                ]
                .concat(),
            ),
        ];
        if self.spoof_guard {
            rules.extend(spoof_rules());
        }
        let set = |name: &str, key: &[Field], elements| Set {
            name: name.to_owned(),
            key: key.to_vec(),
            elements,
        };
        Table {
            family: Family::Bridge,
            name: self.table(),
            counters: [SPOOFED_MAC, SPOOFED_ADDRESS, ROUTER_ADVERTISEMENT]
                .map(str::to_owned)
                .to_vec(),
            sets: vec![
                set(PODS, &[Field::Interface], keys.pods),
                set(MACS, &[Field::Interface, Field::Ether], keys.macs),
                set(V4, &[Field::Interface, Field::Ipv4], keys.v4),
                set(V6, &[Field::Interface, Field::Ipv6], keys.v6),
            ],
            chains: vec![Chain {
                name: "prerouting".to_owned(),
                hook: Some(Hook {
                    kind: ChainKind::Filter,
                    at: HookPoint::PreRouting,
                    // Before `br_netfilter`, which takes IP packets away to the hooks of IP.
                    priority: -350,
                }),
                rules,
            }],
        }
    }

    fn forwarding(&self) -> Table {
        let untracked = self.ports.iter().map(|port| {
            rule([
                Expr::Meta(Meta::L4Proto),
                is(&[UDP]),
                load(Base::Transport, 2, 2),
                is(&port.to_be_bytes()),
                Expr::NoTrack,
                // Of this chain alone: each datagram of the underlay comes by.
                accept(),
            ])
        });
        let untracked: Vec<_> = untracked.collect();
        let chain = |name: &str, kind, at, priority, rules| Chain {
            name: name.to_owned(),
            hook: Some(Hook { kind, at, priority }),
            rules,
        };
        let mut chains = vec![
            chain(
                "prerouting",
                ChainKind::Filter,
                HookPoint::PreRouting,
                RAW,
                untracked.clone(),
            ),
            chain(
                "output",
                ChainKind::Filter,
                HookPoint::Output,
                RAW,
                untracked,
            ),
        ];
        if self.masquerade {
            chains.push(chain(
                "postrouting",
                ChainKind::Nat,
                HookPoint::PostRouting,
                SRCNAT,
                self.masquerade_rules(),
            ));
        }
        Table {
            family: Family::Inet,
            name: self.table(),
            counters: Vec::new(),
            sets: Vec::new(),
            chains,
        }
    }

    fn masquerade_rules(&self) -> Vec<Rule> {
        let (proto, source, destination, len) = match self.range {
            IpNet::V4(_) => (NFPROTO_IPV4, 12, 16, 4),
            IpNet::V6(_) => (NFPROTO_IPV6, 8, 24, 16),
        };
        let (network, mask) = (octets(self.range.network()), octets(self.range.netmask()));
        let of_family = vec![Expr::Meta(Meta::NfProto), is(&[proto])];
        let masked = |offset| vec![load(Base::Network, offset, len), Expr::Mask(mask.clone())];
        // 224.0.0.0/4 and ff00::/8.
        let multicast: (u32, &[u8], &[u8]) = match self.range {
            IpNet::V4(_) => (1, &[0xf0], &[0xe0]),
            IpNet::V6(_) => (1, &[0xff], &[0xff]),
        };
        let mut bridge = self.bridge.clone().into_bytes();
        bridge.resize(INTERFACE_LEN, 0);
        vec![
            rule(
                [
                    of_family.clone(),
                    masked(source),
                    vec![is_not(&network), accept()],
                ]
                .concat(),
            ),
            rule(
                [
                    of_family.clone(),
                    masked(destination),
                    vec![is(&network), accept()],
                ]
                .concat(),
            ),
            rule(
                [
                    of_family.clone(),
                    vec![
                        load(Base::Network, destination, multicast.0),
                        Expr::Mask(multicast.1.to_vec()),
                        is(multicast.2),
                        accept(),
                    ],
                ]
                .concat(),
            ),
            rule([Expr::Meta(Meta::OutName), is(&bridge), accept()]),
            rule([of_family, vec![Expr::Masquerade]].concat()),
        ]
    }
}

/// `net/netfilter/nf_tables`: before connections are tracked, and where sources are translated.
const RAW: i32 = -300;
const SRCNAT: i32 = 100;
/// `IFNAMSIZ`, and what names of veths begin with ([`AttachmentRef::host_veth`]).
const INTERFACE_LEN: usize = 16;
const VETH_PREFIX: &[u8] = b"vw";
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// RFC 4861 §4.2 and §4.4.
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOUR_ADVERT: u8 = 136;
/// Names of the sets.
const PODS: &str = "pods";
const MACS: &str = "pod_macs";
const V4: &str = "pod_ipv4";
const V6: &str = "pod_ipv6";

fn spoof_rules() -> Vec<Rule> {
    let of_interface = |offset, base, len| {
        vec![
            Expr::Meta(Meta::InName),
            Expr::Payload {
                base,
                offset,
                len,
                second: true,
            },
        ]
    };
    let unless_in = |set: &str| vec![lookup(set, true)];
    let is_arp = vec![Expr::Meta(Meta::Protocol), is(&[0x08, 0x06])];
    let is_ipv4 = vec![Expr::Meta(Meta::Protocol), is(&[0x08, 0x00])];
    let not_zero = |offset, len: u32| {
        let zero = vec![0; usize::try_from(len).unwrap_or(0)];
        vec![load(Base::Network, offset, len), is_not(&zero)]
    };
    // fe80::/10: every interface has one, which follows from nothing that is known here.
    let not_link_local = |base, offset| {
        vec![
            load(base, offset, 2),
            Expr::Mask(vec![0xff, 0xc0]),
            is_not(&[0xfe, 0x80]),
        ]
    };
    let is_neighbour_advert = vec![
        Expr::Meta(Meta::L4Proto),
        is(&[ICMPV6]),
        load(Base::Transport, 0, 1),
        is(&[NEIGHBOUR_ADVERT]),
    ];
    let (mac, address) = (drop_as(SPOOFED_MAC), drop_as(SPOOFED_ADDRESS));
    let rules: [&[Vec<Expr>]; 7] = [
        // One that is not known, such as of a plugin of another version, is let be.
        &[vec![Expr::Meta(Meta::InName), lookup(PODS, true), accept()]],
        &[of_interface(6, Base::Link, 6), unless_in(MACS), mac.clone()],
        // RFC 826: sender's hardware address, then its protocol address, zero in a probe (RFC 5227).
        &[
            is_arp.clone(),
            of_interface(8, Base::Network, 6),
            unless_in(MACS),
            mac,
        ],
        &[
            is_arp,
            not_zero(14, 4),
            of_interface(14, Base::Network, 4),
            unless_in(V4),
            address.clone(),
        ],
        &[
            is_ipv4,
            not_zero(12, 4),
            of_interface(12, Base::Network, 4),
            unless_in(V4),
            address.clone(),
        ],
        &[
            is_ipv6(),
            not_zero(8, 16),
            not_link_local(Base::Network, 8),
            of_interface(8, Base::Network, 16),
            unless_in(V6),
            address.clone(),
        ],
        // The target is whom it claims to be (RFC 4861 §4.4).
        &[
            is_ipv6(),
            is_neighbour_advert,
            not_link_local(Base::Transport, 8),
            of_interface(8, Base::Transport, 16),
            unless_in(V6),
            address,
        ],
    ];
    rules
        .into_iter()
        .map(|parts| rule(parts.concat()))
        .collect()
}

/// Keys of the sets.
#[derive(Default)]
struct Keys {
    pods: BTreeSet<Vec<u8>>,
    macs: BTreeSet<Vec<u8>>,
    v4: BTreeSet<Vec<u8>>,
    v6: BTreeSet<Vec<u8>>,
}

impl Keys {
    fn add(&mut self, pod: &GuardedPod) {
        let mut interface = pod.veth.clone().into_bytes();
        interface.resize(INTERFACE_LEN, 0);
        let with = |value: &[u8]| {
            let mut key = [&interface[..], value].concat();
            key.resize(key.len().next_multiple_of(4), 0);
            key
        };
        self.macs.insert(with(&pod.mac.0));
        for address in &pod.addresses {
            match address {
                IpAddr::V4(v4) => self.v4.insert(with(&v4.octets())),
                IpAddr::V6(v6) => self.v6.insert(with(&v6.octets())),
            };
        }
        self.pods.insert(interface);
    }
}

fn rule(exprs: impl Into<Vec<Expr>>) -> Rule {
    Rule(exprs.into())
}

fn is(value: &[u8]) -> Expr {
    Expr::Compare(Operator::Is, value.to_vec())
}

fn is_not(value: &[u8]) -> Expr {
    Expr::Compare(Operator::IsNot, value.to_vec())
}

fn is_ipv6() -> Vec<Expr> {
    vec![Expr::Meta(Meta::Protocol), is(&[0x86, 0xdd])]
}

fn load(base: Base, offset: u32, len: u32) -> Expr {
    Expr::Payload {
        base,
        offset,
        len,
        second: false,
    }
}

fn lookup(set: &str, absent: bool) -> Expr {
    Expr::Lookup {
        set: set.to_owned(),
        absent,
    }
}

fn accept() -> Expr {
    Expr::Verdict(Verdict::Accept)
}

fn drop_as(counter: &str) -> Vec<Expr> {
    vec![
        Expr::Count(counter.to_owned()),
        Expr::Verdict(Verdict::Drop),
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> RuleSettings {
        RuleSettings {
            bridge: "weft".into(),
            range: "10.32.0.0/12".parse().unwrap(),
            ports: vec![6784, 6783],
            masquerade: true,
            spoof_guard: true,
        }
    }

    fn pod() -> GuardedPod {
        let of = AttachmentRef::new("c1", "eth0");
        let addresses = ["10.32.0.7/12", "fd00::7/64"].map(|net| net.parse().unwrap());
        GuardedPod::new(&of, of.mac(), &addresses)
    }

    #[test]
    fn a_pod_is_in_each_set_once() {
        let [guard, _] = settings().tables([&pod()].into_iter());
        let sizes: Vec<_> = guard.sets.iter().map(|set| set.elements.len()).collect();
        assert_eq!(sizes, [1, 1, 1, 1]);
        for set in &guard.sets {
            let len: u32 = set.key.iter().map(|field| field.size()).sum();
            let key = set.elements.first().unwrap();
            assert_eq!(key.len(), usize::try_from(len).unwrap(), "{}", set.name);
            assert!(key.starts_with(b"vw"));
        }
    }

    #[test]
    fn without_the_guard_only_router_advertisements_are_dropped() {
        let off = RuleSettings {
            spoof_guard: false,
            ..settings()
        };
        let [guard, _] = off.tables([&pod()].into_iter());
        assert!(guard.sets.iter().all(|set| set.elements.is_empty()));
        assert_eq!(guard.chains[0].rules.len(), 2);
    }

    #[test]
    fn without_masquerade_there_is_no_chain_for_it() {
        let [_, with] = settings().tables([].into_iter());
        assert_eq!(with.chains.len(), 3);
        let off = RuleSettings {
            masquerade: false,
            ..settings()
        };
        let [_, without] = off.tables([].into_iter());
        assert_eq!(without.chains.len(), 2);
    }

    #[test]
    fn routers_with_bridges_of_their_own_have_tables_of_their_own() {
        let other = RuleSettings {
            bridge: "br1".into(),
            ..settings()
        };
        assert_eq!(
            (settings().table(), other.table()),
            ("weft".into(), "weft_br1".into())
        );
    }
}
