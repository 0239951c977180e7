use hostnet::plan::{self, BridgeSpec, Plan, PlanError, Step, TapSpec};
use hostnet::{BridgeOptions, Netlink, Offloads, Tap, TapOptions};
use ipnet::IpNet;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use wire::Mac;

use crate::world::{World, net, veth};

fn spec() -> BridgeSpec {
    BridgeSpec {
        name: "weft".to_owned(),
        owner: "node-1".to_owned(),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        mtu: 1450,
        addresses: vec![net("10.32.0.1/12"), net("fd00::1/64")],
        tap: Some(TapSpec {
            name: "weft-tap".to_owned(),
            tx_queue_len: 2000,
        }),
        adopt: false,
    }
}

fn tap(world: &World) -> Tap {
    let options = TapOptions {
        name: "weft-tap",
        queues: 2,
        vnet_hdr: true,
        offloads: Offloads::ALL,
    };
    world.run(|| Tap::open(&options).unwrap())
}

fn planned(netlink: &mut Netlink, spec: &BridgeSpec) -> Result<Plan, PlanError> {
    let observed = plan::observe(netlink, spec).unwrap();
    plan::bridge_plan(&observed, spec)
}

fn torn_down(netlink: &mut Netlink, spec: &BridgeSpec) -> Plan {
    let observed = plan::observe(netlink, spec).unwrap();
    let plan = plan::teardown_plan(&observed, spec);
    let errors = plan::apply_all(netlink, &plan);
    assert!(errors.is_empty(), "{errors:?}");
    plan
}

#[test]
fn the_bridge_is_made_once_and_taken_away() {
    let world = World::new();
    let mut netlink = world.netlink();
    let _tap = tap(&world);
    let before = netlink.links().unwrap().len();
    let plan = planned(&mut netlink, &spec()).unwrap();
    plan::apply(&mut netlink, &plan).unwrap();
    assert_eq!(planned(&mut netlink, &spec()).unwrap(), Plan::default());

    let bridge = netlink.link("weft").unwrap().unwrap();
    let port = netlink.link("weft-tap").unwrap().unwrap();
    assert!(
        bridge.up && port.up && !port.link_local,
        "{bridge:?} {port:?}"
    );
    assert_eq!(
        (port.master, port.mtu, port.tx_queue_len),
        (Some(bridge.index), 1450, 2000)
    );
    assert!(netlink.addresses(port.index).unwrap().is_empty());
    let addresses = netlink.addresses(bridge.index).unwrap();
    assert!(
        spec().addresses.iter().all(|a| addresses.contains(a)),
        "{addresses:?}"
    );

    torn_down(&mut netlink, &spec());
    assert_eq!(netlink.links().unwrap().len(), before);
    assert!(torn_down(&mut netlink, &spec()).is_empty());
}

#[test]
fn a_bridge_of_ours_is_brought_back_into_line() {
    let (world, pod) = (World::new(), World::new());
    let mut netlink = world.netlink();
    let first = tap(&world);
    let plan = planned(&mut netlink, &spec()).unwrap();
    plan::apply(&mut netlink, &plan).unwrap();
    let bridge = netlink.link("weft").unwrap().unwrap().index;
    let mut request = veth("vw1", "eth0", &pod.ns);
    request.master = Some(bridge);
    netlink.add_veth(&request).unwrap();

    // A restart: the TAP goes, and somebody changes things.
    drop(first);
    netlink.set_mtu(bridge, 1400).unwrap();
    netlink.set_down(bridge).unwrap();
    netlink.add_address(bridge, net("10.99.0.1/16")).unwrap();
    netlink.del_address(bridge, net("10.32.0.1/12")).unwrap();
    let _second = tap(&world);
    let plan = planned(&mut netlink, &spec()).unwrap();
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::AddBridge { .. })),
        "{plan:?}"
    );
    plan::apply(&mut netlink, &plan).unwrap();
    assert_eq!(planned(&mut netlink, &spec()).unwrap(), Plan::default());
    assert!(
        !netlink
            .addresses(bridge)
            .unwrap()
            .contains(&net("10.99.0.1/16"))
    );
    // The pod's port never left.
    assert_eq!(netlink.link("vw1").unwrap().unwrap().master, Some(bridge));
}

#[test]
fn a_foreign_bridge_is_refused_or_adopted_and_never_deleted() {
    let world = World::new();
    let mut netlink = world.netlink();
    let _tap = tap(&world);
    let mac = Mac([2, 0, 0, 0, 0, 9]);
    let options = BridgeOptions {
        mac: Some(mac),
        mtu: 1500,
        alias: None,
    };
    let bridge = netlink.add_bridge("weft", &options).unwrap();
    netlink.add_address(bridge, net("192.0.2.1/24")).unwrap();

    let error = planned(&mut netlink, &spec()).unwrap_err();
    assert!(
        matches!(error, PlanError::Foreign { .. }) && error.to_string().contains("--bridge"),
        "{error}"
    );
    assert!(torn_down(&mut netlink, &spec()).is_empty());

    let adopting = BridgeSpec {
        adopt: true,
        ..spec()
    };
    let plan = planned(&mut netlink, &adopting).unwrap();
    plan::apply(&mut netlink, &plan).unwrap();
    assert!(planned(&mut netlink, &adopting).unwrap().is_empty());
    let adopted = netlink.link("weft").unwrap().unwrap();
    assert_eq!((adopted.mac, adopted.alias, adopted.up), (mac, None, true));
    torn_down(&mut netlink, &adopting);
    assert!(netlink.link("weft").unwrap().is_some());
    let left = netlink.addresses(bridge).unwrap();
    let left: Vec<_> = left
        .into_iter()
        .filter(|a| matches!(a, IpNet::V4(_)))
        .collect();
    assert_eq!(left, [net("192.0.2.1/24")]);
}

#[test]
fn a_bridge_of_another_node_is_refused() {
    let world = World::new();
    let mut netlink = world.netlink();
    let other = BridgeSpec {
        owner: "node-2".to_owned(),
        tap: None,
        ..spec()
    };
    let plan = planned(&mut netlink, &other).unwrap();
    plan::apply(&mut netlink, &plan).unwrap();
    let error = planned(
        &mut netlink,
        &BridgeSpec {
            tap: None,
            ..spec()
        },
    )
    .unwrap_err();
    assert_eq!(
        error,
        PlanError::OtherNode {
            name: "weft".to_owned(),
            owner: "node-2".to_owned()
        }
    );
    assert!(torn_down(&mut netlink, &spec()).is_empty());
}

#[test]
fn what_is_no_bridge_or_no_tap_is_refused_untouched() {
    let (world, pod) = (World::new(), World::new());
    let mut netlink = world.netlink();
    let made = netlink.add_veth(&veth("weft", "eth0", &pod.ns)).unwrap();
    let error = planned(&mut netlink, &spec()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "weft is a veth, not a bridge: choose another name with --bridge, or delete it"
    );
    assert!(
        torn_down(
            &mut netlink,
            &BridgeSpec {
                adopt: true,
                ..spec()
            }
        )
        .is_empty()
    );
    netlink.rename(made.host, "weft-tap").unwrap();
    let error = planned(&mut netlink, &spec()).unwrap_err();
    assert!(matches!(error, PlanError::NotATap { .. }), "{error}");
    netlink.delete_link(made.host).unwrap();
    let error = planned(&mut netlink, &spec()).unwrap_err();
    assert!(matches!(error, PlanError::NoTap { .. }), "{error}");
}

/// plan(observe(apply(plan))) is empty, from any earlier state of ours to any wanted one.
#[test]
fn a_plan_that_was_applied_is_empty() {
    let world = World::new();
    let mut netlink = world.netlink();
    let _tap = tap(&world);
    let address = prop_oneof![
        (0u8..4, 8u8..=32).prop_map(|(host, len)| net(&format!("10.32.0.{host}/{len}"))),
        (1u8..4).prop_map(|host| net(&format!("fd00::{host}/64"))),
    ];
    let specs = (
        proptest::option::of(0u8..3),
        1280u16..9000,
        proptest::collection::vec(address, 0..4),
        proptest::option::of(1u32..5000),
        any::<bool>(),
    )
        .prop_map(|(mac, mtu, addresses, queue, adopt)| BridgeSpec {
            mac: mac.map(|last| Mac([2, 0, 0, 0, 0, last])),
            mtu,
            addresses,
            tap: queue.map(|tx_queue_len| TapSpec {
                tx_queue_len,
                name: "weft-tap".to_owned(),
            }),
            adopt,
            ..spec()
        });
    // Each case starts from what the one before left.
    let mut runner = TestRunner::new(Config::with_cases(60));
    let netlink = std::cell::RefCell::new(&mut netlink);
    runner
        .run(&specs, |spec| {
            let mut netlink = netlink.borrow_mut();
            let plan = planned(&mut netlink, &spec).unwrap();
            plan::apply(&mut netlink, &plan).map_err(|e| TestCaseError::fail(format!("{e:?}")))?;
            prop_assert_eq!(planned(&mut netlink, &spec).unwrap(), Plan::default());
            Ok(())
        })
        .unwrap();
}
