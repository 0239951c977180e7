use hostnet::{Route, RouteTo};

use crate::world::{ip, net, pair};

#[test]
fn addresses_are_added_listed_and_deleted() {
    let (a, _b, made) = pair(&[], &[]);
    let mut netlink = a.netlink();
    netlink.set_no_link_local(made.host).unwrap();
    // The link-local address may have come before that.
    for address in netlink.addresses(made.host).unwrap() {
        netlink.del_address(made.host, address).unwrap();
    }
    let wanted = [net("10.32.0.7/12"), net("10.40.0.1/32"), net("fd00::7/64")];
    for address in wanted {
        netlink.add_address(made.host, address).unwrap();
        netlink.add_address(made.host, address).unwrap();
    }
    let mut has = netlink.addresses(made.host).unwrap();
    has.sort();
    assert_eq!(has, wanted);
    // Another prefix of the same IPv6 address is not the same.
    let error = netlink
        .add_address(made.host, net("fd00::7/80"))
        .unwrap_err();
    assert!(error.is_exists(), "{error}");
    let broadcast = a.run(|| std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap());
    assert!(
        broadcast.contains("10.47.255.255"),
        "no broadcast address:\n{broadcast}"
    );
    for address in wanted {
        netlink.del_address(made.host, address).unwrap();
        netlink.del_address(made.host, address).unwrap();
    }
    assert!(netlink.addresses(made.host).unwrap().is_empty());
    assert!(netlink.addresses(4711).unwrap().is_empty());
    let error = netlink.add_address(4711, wanted[0]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("add address 10.32.0.7/12 to interface 4711: "),
        "{error}"
    );
}

#[test]
fn routes_are_added_once_and_never_replace_another() {
    let (a, _b, made) = pair(&["10.32.0.7/12", "fd00::7/64"], &[]);
    let mut netlink = a.netlink();
    let lan = Route {
        dst: net("192.0.2.0/24"),
        gateway: Some(ip("10.32.0.1")),
        oif: None,
        src: None,
        onlink: false,
    };
    let on_link = Route {
        dst: net("198.51.100.0/24"),
        gateway: None,
        oif: Some(made.host),
        src: Some(ip("10.32.0.7")),
        onlink: false,
    };
    let far = Route {
        dst: net("203.0.113.0/24"),
        gateway: Some(ip("172.16.0.1")),
        oif: Some(made.host),
        src: None,
        onlink: true,
    };
    let v4 = Route::default_via(ip("10.32.0.1"), made.host);
    let v6 = Route::default_via(ip("fd00::1"), made.host);
    for route in [lan, on_link, far, v4, v6] {
        netlink.add_route(&route).unwrap();
        netlink.add_route(&route).unwrap();
    }
    let routes = netlink.routes(Some(made.host)).unwrap();
    for wanted in [on_link, far, v4, v6] {
        assert!(routes.contains(&wanted), "{wanted:?} is not in {routes:?}");
    }
    assert!(
        routes
            .iter()
            .any(|r| r.dst == net("10.32.0.0/12") && r.gateway.is_none())
    );
    assert!(netlink.routes(Some(4711)).unwrap().is_empty());
    assert!(netlink.routes(None).unwrap().len() >= routes.len());

    let other = Route::default_via(ip("10.32.0.2"), made.host);
    let error = netlink.add_route(&other).unwrap_err();
    assert_eq!(error.to_string(), "add route to 0.0.0.0/0: File exists");

    let to = |netlink: &mut hostnet::Netlink, address| netlink.route_to(ip(address)).unwrap();
    let choice = RouteTo {
        oif: made.host,
        gateway: None,
        src: Some(ip("10.32.0.7")),
        mtu: None,
    };
    assert_eq!(to(&mut netlink, "10.32.0.9"), Some(choice));
    let via = RouteTo {
        gateway: Some(ip("10.32.0.1")),
        ..choice
    };
    assert_eq!(to(&mut netlink, "1.1.1.1"), Some(via));
    let via = RouteTo {
        gateway: Some(ip("fd00::1")),
        src: Some(ip("fd00::7")),
        ..choice
    };
    assert_eq!(to(&mut netlink, "2001:db8::1"), Some(via));

    for route in [v4, v6, lan] {
        netlink.del_route(&route).unwrap();
        netlink.del_route(&route).unwrap();
    }
    assert_eq!(to(&mut netlink, "1.1.1.1"), None);
    assert_eq!(to(&mut netlink, "2001:db8::1"), None);
}
