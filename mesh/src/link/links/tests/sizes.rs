//! Paths whose MTU is not that of the interface.

use super::*;
use crate::link::input::LinkInput;
use crate::link::view::LinkState;

#[test]
fn a_narrow_path_is_found_before_the_link_is_used() {
    let mut net = Net::new(2, 1);
    net.rule(0, 1, |rule| rule.mtu = 1413);
    net.join();
    let took = net.until(S(10), Net::is_whole).unwrap();
    assert!(took < S(2), "{took:?}");
    assert_eq!(net.path(0, 1), "vxlan direct 10.0.0.2:6784 1 1363");
}

#[test]
fn a_shrunk_underlay_is_found_in_seconds_under_traffic_and_a_grown_one_too() {
    for (seed, mtu) in [(1, 1400), (2, 1337), (3, 900), (4, 1499)] {
        let mut net = Net::new(2, seed);
        net.join();
        net.flow_size = 1450;
        net.flow(0, 1);
        net.run(S(30) + MS(333 * seed));
        net.rule(0, 1, |rule| rule.mtu = mtu);
        let took = net
            .until(S(10), |net| net.mtu(0, 1) == Some(mtu - 50))
            .unwrap();
        assert!(took < S(5), "{mtu}: {took:?}");
        let start = net.now;
        net.run(S(30));
        assert_eq!(net.lost_since(start + MS(1)), 0, "nothing is black-holed");
        net.rule(0, 1, |rule| rule.mtu = 1500);
        let took = net.until(S(60), |net| net.mtu(0, 1) == Some(1450)).unwrap();
        assert!(took < S(20), "{took:?}");
        assert!(
            net.changes(0, 1, S(0))
                .iter()
                .all(|change| change == "vxlan")
        );
    }
}

/// What is left of 576 bytes is less than 576: a link on such an underlay is as good as another.
#[test]
fn the_smallest_underlay_has_links_that_are_up() {
    let mut net = Net::with(2, 1, |_, config| config.underlay_mtu = 576);
    net.all(|rule| rule.mtu = 576);
    net.join();
    net.until(S(3), Net::is_whole).unwrap();
    net.run(S(30));
    assert_eq!(net.path(0, 1), "vxlan direct 10.0.0.2:6784 1 526");
    let view = net.nodes[0].links.view(net.nodes[1].id, net.now).unwrap();
    assert_eq!((view.state, view.reason), (LinkState::Up, None));
}

#[test]
fn while_full_packets_vanish_the_link_is_degraded() {
    let mut net = Net::new(2, 2);
    net.join();
    net.flow(0, 1);
    net.run(S(10));
    net.rule(0, 1, |rule| rule.mtu = 1300);
    let id = net.nodes[1].id;
    let degraded = |net: &Net| {
        let view = net.nodes[0].links.view(id, net.now).unwrap();
        view.state == LinkState::Degraded
            && view.reason.as_deref() == Some("only small packets pass")
    };
    net.until(S(10), degraded).unwrap();
    net.until(S(3), |net| net.mtu(0, 1) == Some(1250)).unwrap();
    net.run(S(3));
    let view = net.nodes[0].links.view(id, net.now).unwrap();
    assert_eq!(view.state, LinkState::Up);
}

#[test]
fn the_interface_takes_more_and_less() {
    let mut net = Net::with(2, 3, |_, config| config.mtu = 8950);
    net.all(|rule| rule.mtu = 9000);
    net.join();
    net.run(S(5));
    assert_eq!(net.mtu(0, 1), Some(1450), "the interface's");
    net.input(0, LinkInput::UnderlayMtu(9000));
    net.run(S(1));
    assert_eq!((net.mtu(0, 1), net.mtu(1, 0)), (Some(8950), Some(1450)));
    net.input(0, LinkInput::UnderlayMtu(1280));
    assert_eq!(net.mtu(0, 1), Some(1230), "at once");
}

#[test]
fn a_relayed_way_is_as_narrow_as_its_narrowest_link() {
    let mut net = Net::new(3, 4);
    net.cut(0, 2, true);
    net.rule(1, 2, |rule| rule.mtu = 1280);
    net.join();
    net.until(S(20), Net::is_whole).unwrap();
    assert_eq!(net.path(0, 2), "sleeve via n2 2 1218");
}

#[test]
fn a_lossy_path_does_not_shrink_for_good() {
    let mut net = Net::new(2, 5);
    net.rule(0, 1, |rule| rule.lost = 100);
    net.join();
    net.flow(0, 1);
    net.run(S(600));
    net.rule(0, 1, |rule| rule.lost = 0);
    net.run(S(40));
    assert_eq!(net.mtu(0, 1), Some(1450));
}

#[test]
fn a_network_over_ipv6_leaves_twenty_bytes_less() {
    let mut net = Net::new(2, 6);
    for (node, ip) in ["2001:db8::1", "2001:db8::2"].iter().enumerate() {
        net.renumber(node, ip.parse().unwrap());
    }
    net.join();
    net.run(S(2));
    assert_eq!(net.path(0, 1), "vxlan direct [2001:db8::2]:6784 1 1430");
    net.rule(0, 1, |rule| rule.vxlan = false);
    net.run(S(20));
    assert_eq!(net.path(0, 1), "sleeve direct [2001:db8::2]:6783 1 1418");
}

#[test]
fn sealed_links_use_sleeve_and_leave_room_for_the_seal() {
    let mut net = Net::with(2, 7, |_, config| config.sealed = true);
    net.join();
    net.run(S(2));
    assert_eq!(net.path(0, 1), "sleeve direct 10.0.0.2:6783 1 1414");
    assert_eq!(net.reason(0, 1).unwrap(), "frames are sealed");
}
