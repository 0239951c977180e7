//! In a network namespace of their own, so they need root and fail without it.

use clap::{Args as _, FromArgMatches as _};
use hostnet::link::{BridgeOptions, VethRequest};
use hostnet::netns::NetNs;
use hostnet::tap::{Offloads, Tap, TapOptions};

use super::*;
use crate::settings::{Options, load};

const ID: PeerId = PeerId([0x10, 2, 3, 4, 5, 6, 7, 8]);

fn settings(line: &[&str]) -> Settings {
    let command = Options::augment_args(clap::Command::new("weft").no_binary_name(true));
    let matches = command.try_get_matches_from(line).unwrap();
    let options = Options::from_arg_matches(&matches).unwrap();
    load(options, Some(std::path::Path::new("/dev/null")), "host-1").unwrap()
}

/// Runs a test in a new namespace, which goes with it.
fn in_namespace(name: &str, test: impl FnOnce() + Send) {
    struct Remove(String);
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = NetNs::remove(&self.0);
        }
    }
    let name = format!("weft-host-{name}-{}", std::process::id());
    let namespace = NetNs::create(&name).expect("a namespace can be made, which needs root");
    let _remove = Remove(name);
    namespace.run(test).unwrap();
}

fn open() -> Host {
    Host::open(&settings(&["--bridge=br", "--tap=tap"]), ID).unwrap()
}

fn tap() -> Tap {
    Tap::open(&TapOptions {
        name: "tap",
        queues: 1,
        vnet_hdr: true,
        offloads: Offloads::NONE,
    })
    .unwrap()
}

fn address() -> Vec<IpNet> {
    vec!["10.32.0.1/12".parse().unwrap()]
}

/// A veth with one end on the bridge, as a pod has.
fn attach_pod() {
    let mut netlink = Netlink::open().unwrap();
    let bridge = netlink.link("br").unwrap().unwrap().index;
    netlink
        .add_veth(&VethRequest {
            host: "vw1",
            mtu: 1450,
            host_mac: None,
            master: Some(bridge),
            hairpin: false,
            host_up: true,
            peer_name: "eth0",
            peer_ns: None,
            peer_mac: None,
            alias: None,
        })
        .unwrap();
}

#[test]
fn made_joined_and_removed_again() {
    in_namespace("made", || {
        let mut host = open();
        host.raise_bridge(1450, Vec::new()).unwrap();
        let tap = tap();
        host.join_tap().unwrap();
        host.set_addresses(address()).unwrap();
        assert_eq!(host.bridge_mac().unwrap(), Mac([0x12, 2, 3, 4, 5, 6]));
        let mut netlink = Netlink::open().unwrap();
        let bridge = netlink.link("br").unwrap().unwrap();
        let port = netlink.link("tap").unwrap().unwrap();
        assert_eq!((bridge.up, bridge.mtu), (true, 1450));
        assert_eq!(
            (port.up, port.mtu, port.master),
            (true, 1450, Some(bridge.index))
        );
        assert!(
            netlink
                .addresses(bridge.index)
                .unwrap()
                .contains(&address()[0])
        );
        assert_eq!(sysctl::read("net/ipv6/conf/br/accept_ra").unwrap(), "0");

        drop(tap);
        assert!(host.lower_bridge().unwrap());
        assert_eq!(netlink.link("br").unwrap(), None);
        assert!(host.lower_bridge().unwrap(), "again is no error");
    });
}

#[test]
fn i7_with_pods_it_stays_and_is_adopted_with_its_address() {
    in_namespace("adopted", || {
        let mut first = open();
        first.raise_bridge(1450, address()).unwrap();
        attach_pod();
        assert!(!first.lower_bridge().unwrap());
        let mut netlink = Netlink::open().unwrap();
        let before = netlink.link("br").unwrap().unwrap();

        open().raise_bridge(1400, address()).unwrap();
        let after = netlink.link("br").unwrap().unwrap();
        assert_eq!(
            (after.index, after.mac, after.mtu),
            (before.index, before.mac, 1400)
        );
        assert!(
            netlink
                .addresses(after.index)
                .unwrap()
                .contains(&address()[0])
        );
        assert_eq!(
            netlink.link("vw1").unwrap().unwrap().master,
            Some(after.index)
        );
    });
}

#[test]
fn a_bridge_of_somebody_else_is_refused_and_left_alone() {
    in_namespace("foreign", || {
        let mut netlink = Netlink::open().unwrap();
        netlink
            .add_bridge(
                "br",
                &BridgeOptions {
                    mtu: 1500,
                    ..BridgeOptions::default()
                },
            )
            .unwrap();
        let before = netlink.link("br").unwrap();
        let mut host = open();
        let error = format!("{:#}", host.raise_bridge(1450, address()).unwrap_err());
        assert!(
            error.contains("br") && error.contains("--bridge"),
            "{error}"
        );
        assert!(!host.lower_bridge().unwrap());
        assert_eq!(netlink.link("br").unwrap(), before);
    });
}

#[test]
fn the_underlay_is_what_leads_to_the_peers() {
    in_namespace("underlay", || {
        let mut netlink = Netlink::open().unwrap();
        for (name, peer, mtu, address) in [
            ("eth0", "p0", 1500, "192.0.2.1/24"),
            ("eth1", "p1", 9000, "198.18.0.1/24"),
        ] {
            let pair = netlink
                .add_veth(&VethRequest {
                    host: name,
                    mtu,
                    host_mac: None,
                    master: None,
                    hairpin: false,
                    host_up: true,
                    peer_name: peer,
                    peer_ns: None,
                    peer_mac: None,
                    alias: None,
                })
                .unwrap();
            netlink.set_up(pair.peer).unwrap();
            netlink
                .add_address(pair.host, address.parse().unwrap())
                .unwrap();
        }
        let mut host = open();
        host.raise_bridge(1450, address()).unwrap();
        assert_eq!(host.underlay(&[]).unwrap().mtu, 1500);
        let found = host.underlay(&["198.18.0.2".parse().unwrap()]).unwrap();
        assert_eq!((found.mtu, found.overlay_mtu()), (9000, 8950));
        let own = host.own_addresses().unwrap();
        for address in ["127.0.0.1", "192.0.2.1", "198.18.0.1", "10.32.0.1"] {
            assert!(own.contains(&address.parse().unwrap()), "{address}");
        }
    });
}
