use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hostnet::{BridgeOptions, LinkKind, NetNs, NetlinkError, VxlanOptions};
use nix::errno::Errno;
use wire::{Mac, Vni};

use crate::world::{World, ip, net, pair, veth, wait_for};

const MAC_A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const MAC_B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

#[test]
fn a_veth_has_all_it_was_asked_for() {
    let (host, pod) = (World::new(), World::new());
    let mut netlink = host.netlink();
    let bridge = netlink
        .add_bridge("weft", &BridgeOptions::default())
        .unwrap();
    let mut request = veth("vw1234", "eth0", &pod.ns);
    request.mtu = 1376;
    request.host_mac = Some(MAC_A);
    request.peer_mac = Some(MAC_B);
    request.master = Some(bridge);
    request.hairpin = true;
    request.alias = Some("weft:node-1");
    let made = netlink.add_veth(&request).unwrap();

    let link = netlink.link("vw1234").unwrap().unwrap();
    assert_eq!(
        (link.index, link.mac, link.mtu, link.master),
        (made.host, MAC_A, 1376, Some(bridge))
    );
    assert_eq!(link.kind, Some(LinkKind::Veth));
    assert_eq!(link.alias.as_deref(), Some("weft:node-1"));
    assert_eq!(link.peer_index, Some(made.peer));
    assert!(link.up && !link.running && !link.link_local, "{link:?}");
    assert_eq!(sysfs(&host, "vw1234/brport/hairpin_mode"), "1");
    assert_eq!(netlink.link_by_index(made.host).unwrap().unwrap(), link);

    let mut inside = pod.netlink();
    let peer = inside.link("eth0").unwrap().unwrap();
    assert_eq!((peer.index, peer.mac, peer.mtu), (made.peer, MAC_B, 1376));
    assert!(!peer.up && peer.link_local, "{peer:?}");
    inside.set_up(made.peer).unwrap();
    wait_for("carrier", || {
        netlink
            .link("vw1234")
            .unwrap()
            .unwrap()
            .running
            .then_some(())
    });
    assert!(netlink.addresses(made.host).unwrap().is_empty());

    netlink.set_hairpin(made.host, false).unwrap();
    assert_eq!(sysfs(&host, "vw1234/brport/hairpin_mode"), "0");
    netlink.delete_link(made.host).unwrap();
    netlink.delete_link(made.host).unwrap();
    assert_eq!(inside.link("eth0").unwrap(), None);
}

#[test]
fn a_veth_that_fails_leaves_nothing() {
    let (host, pod) = (World::new(), World::new());
    let mut netlink = host.netlink();
    // Hairpin is for ports of a bridge.
    let mut request = veth("vw1", "eth0", &pod.ns);
    request.hairpin = true;
    let error = netlink.add_veth(&request).unwrap_err();
    assert!(
        error.to_string().starts_with("set up veth vw1: "),
        "{error}"
    );
    // A master that does not exist.
    request.hairpin = false;
    request.master = Some(4711);
    let error = netlink.add_veth(&request).unwrap_err();
    assert!(
        error.to_string().starts_with("add veth vw1 to eth0: "),
        "{error}"
    );
    // The name in the pod is taken.
    pod.netlink()
        .add_bridge("eth0", &BridgeOptions::default())
        .unwrap();
    request.master = None;
    assert!(netlink.add_veth(&request).unwrap_err().is_exists());
    assert_eq!(netlink.links().unwrap().len(), 1);
    assert_eq!(pod.netlink().links().unwrap().len(), 2);
}

#[test]
fn datagrams_cross_a_veth_between_namespaces() {
    let (a, b, _) = pair(
        &["10.9.0.1/24", "fd09::1/64"],
        &["10.9.0.2/24", "fd09::2/64"],
    );
    for (from, to) in [("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")] {
        let server = b.run(|| UdpSocket::bind(SocketAddr::new(ip(to), 7)).unwrap());
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let client = a.run(|| UdpSocket::bind(SocketAddr::new(ip(from), 0)).unwrap());
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut buffer = [0; 16];
        client
            .send_to(b"ping", server.local_addr().unwrap())
            .unwrap();
        let (len, source) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], source),
            (&b"ping"[..], client.local_addr().unwrap())
        );
        server.send_to(b"pong", source).unwrap();
        let len = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"pong");
    }
    let mut netlink = a.netlink();
    let link = netlink.link("a0").unwrap().unwrap();
    assert!(
        link.stats.tx_packets >= 2 && link.stats.rx_bytes > 60,
        "{:?}",
        link.stats
    );
    let b_mac = b.netlink().link("b0").unwrap().unwrap().mac;
    let neighbours = netlink.neighbours(link.index).unwrap();
    for address in ["10.9.0.2", "fd09::2"] {
        let known = neighbours
            .iter()
            .find(|n| n.address == ip(address))
            .unwrap();
        assert_eq!(known.mac, b_mac, "{neighbours:?}");
    }
}

#[test]
fn a_bridge_keeps_its_address_and_mtu_when_ports_join() {
    let (world, pod) = (World::new(), World::new());
    let mut netlink = world.netlink();
    let options = BridgeOptions {
        mac: Some(MAC_B),
        mtu: 8950,
        alias: Some("weft:node-1".to_owned()),
    };
    let index = netlink.add_bridge("weft", &options).unwrap();
    let made = netlink.link("weft").unwrap().unwrap();
    assert_eq!(
        (made.index, made.mac, made.mtu, made.up),
        (index, MAC_B, 8950, false)
    );
    assert_eq!(made.kind, Some(LinkKind::Bridge));
    assert_eq!(made.alias.as_deref(), Some("weft:node-1"));
    for (setting, value) in [
        ("stp_state", "0"),
        ("forward_delay", "0"),
        ("multicast_snooping", "0"),
    ] {
        assert_eq!(
            sysfs(&world, &format!("weft/bridge/{setting}")),
            value,
            "{setting}"
        );
    }
    let mut request = veth("low", "eth0", &pod.ns);
    request.host_mac = Some(MAC_A);
    request.master = Some(index);
    netlink.add_veth(&request).unwrap();
    let now = netlink.link("weft").unwrap().unwrap();
    assert_eq!((now.mac, now.mtu), (MAC_B, 8950));
}

#[test]
fn a_link_is_changed_and_moved() {
    let (a, b, made) = pair(&[], &[]);
    let mut netlink = a.netlink();
    let bridge = netlink.add_bridge("br", &BridgeOptions::default()).unwrap();
    netlink.set_master(made.host, Some(bridge)).unwrap();
    netlink.set_mtu(made.host, 1400).unwrap();
    netlink.set_mac(made.host, MAC_A).unwrap();
    netlink.set_alias(made.host, "mine").unwrap();
    netlink.set_txqlen(made.host, 77).unwrap();
    let link = netlink.link("a0").unwrap().unwrap();
    assert_eq!(
        (link.mtu, link.mac, link.master),
        (1400, MAC_A, Some(bridge))
    );
    assert_eq!(
        (link.alias.as_deref(), link.tx_queue_len),
        (Some("mine"), 77)
    );
    netlink.set_master(made.host, None).unwrap();
    netlink.set_alias(made.host, "").unwrap();
    netlink.set_down(made.host).unwrap();
    netlink.rename(made.host, "a1").unwrap();
    let link = netlink.link("a1").unwrap().unwrap();
    assert_eq!((link.master, link.alias, link.up), (None, None, false));
    netlink.move_to_ns(made.host, &b.ns).unwrap();
    assert_eq!(netlink.link("a1").unwrap(), None);
    let names: Vec<_> = b
        .netlink()
        .links()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert!(names.contains(&"a1".to_owned()), "{names:?}");
}

#[test]
fn kernel_vxlan_devices_talk_to_each_other() {
    for (a_address, b_address, port, udp_csum) in [
        ("10.9.0.1/24", "10.9.0.2/24", 6784, false),
        ("fd09::1/64", "fd09::2/64", 8472, true),
    ] {
        let (a, b, made) = pair(&[a_address], &[b_address]);
        let sides = [
            (&a, made.host, a_address, b_address),
            (&b, made.peer, b_address, a_address),
        ];
        for (i, (world, dev, local, remote)) in (1..).zip(sides) {
            let mut netlink = world.netlink();
            let options = VxlanOptions {
                local: Some(net(local).addr()),
                remote: Some(net(remote).addr()),
                dev: Some(dev),
                udp_csum,
                mtu: 1400,
                ..VxlanOptions::new(Vni::DEFAULT, port)
            };
            let index = netlink.add_vxlan("vx0", &options).unwrap();
            let link = netlink.link("vx0").unwrap().unwrap();
            assert_eq!((link.kind, link.mtu), (Some(LinkKind::Vxlan), 1400));
            netlink
                .add_address(index, net(&format!("10.10.0.{i}/24")))
                .unwrap();
            netlink.set_up(index).unwrap();
        }
        let server = b.run(|| UdpSocket::bind("10.10.0.2:7").unwrap());
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let client = a.run(|| UdpSocket::bind("10.10.0.1:0").unwrap());
        client
            .send_to(b"through the tunnel", "10.10.0.2:7")
            .unwrap();
        let mut buffer = [0; 32];
        assert_eq!(server.recv(&mut buffer).unwrap(), 18);
    }
}

#[test]
fn a_vxlan_device_is_told_where_addresses_are() {
    let world = World::new();
    let mut netlink = world.netlink();
    let index = netlink
        .add_vxlan("vx0", &VxlanOptions::new(Vni::DEFAULT, 6784))
        .unwrap();
    netlink
        .add_vxlan_destination(index, Mac::ZERO, ip("10.9.0.2"))
        .unwrap();
    netlink
        .add_vxlan_destination(index, Mac::ZERO, ip("10.9.0.3"))
        .unwrap();
    netlink
        .add_vxlan_destination(index, MAC_A, ip("10.9.0.3"))
        .unwrap();
}

#[test]
fn errors_name_the_operation_and_the_object() {
    let world = World::new();
    let mut netlink = world.netlink();
    netlink
        .add_bridge("weft", &BridgeOptions::default())
        .unwrap();
    let error = netlink
        .add_bridge("weft", &BridgeOptions::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "add bridge weft: File exists");
    assert!(error.is_exists());
    let error = netlink.set_mtu(4711, 1400).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("set the MTU of interface 4711 to 1400: No such device"),
        "{error}"
    );
    assert!(error.is_missing());
    // With the kernel's own words.
    let lo = netlink.link("lo").unwrap().unwrap();
    let weft = netlink.link("weft").unwrap().unwrap();
    let error = netlink.set_master(lo.index, Some(weft.index)).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EINVAL));
    let error = netlink.set_mtu(weft.index, 20).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "set the MTU of interface {} to 20: Invalid argument (mtu less than device minimum)",
            weft.index
        )
    );
    for name in ["", "a name", "x/y", "sixteen-bytes-it", "."] {
        let error = netlink.link(name).unwrap_err();
        assert!(matches!(error, NetlinkError::BadName { .. }), "{error}");
    }
    assert_eq!(netlink.link("none").unwrap(), None);
    assert_eq!(netlink.link_by_index(4711).unwrap(), None);
}

#[test]
fn many_links_are_listed_in_parts() {
    let world = World::new();
    let mut netlink = world.netlink();
    for i in 0..60 {
        netlink
            .add_bridge(&format!("br{i}"), &BridgeOptions::default())
            .unwrap();
    }
    let links = netlink.links().unwrap();
    assert_eq!(links.len(), 61);
    assert!(links.is_sorted_by_key(|link| link.index));
}

#[test]
fn a_socket_keeps_its_namespace() {
    let world = World::new();
    let mut netlink = world.netlink();
    // Used on this thread, which is elsewhere.
    assert!(!NetNs::current().unwrap().same_as(&world.ns));
    netlink
        .add_bridge("inside", &BridgeOptions::default())
        .unwrap();
    assert!(world.netlink().link("inside").unwrap().is_some());
}

/// A setting of an interface as the namespace's own sysfs shows it.
fn sysfs(world: &World, path: &str) -> String {
    // sysfs shows the namespace in which it was mounted.
    let script = format!("mount -t sysfs none /sys && cat /sys/class/net/{path}");
    let output = world.run(|| {
        std::process::Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .unwrap()
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
