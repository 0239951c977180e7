//! Namespaces for tests: made on demand, gone with their guard, even when a test panics.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hostnet::{NetNs, Netlink, VethPair, VethRequest};
use ipnet::IpNet;

/// A namespace that is removed when this goes.
pub(crate) struct World {
    pub(crate) name: String,
    pub(crate) ns: NetNs,
}

impl World {
    pub(crate) fn new() -> Self {
        let name = fresh_name();
        let ns = NetNs::create(&name).expect("tests need root: a namespace could not be made");
        Self { name, ns }
    }

    /// A netlink socket of the namespace.
    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open_in(&self.ns).unwrap()
    }

    /// Runs on a thread in the namespace.
    pub(crate) fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.ns.run(f).unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        NetNs::remove(&self.name).unwrap();
    }
}

/// A name that no other test, nor another run, uses.
pub(crate) fn fresh_name() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("wefttest-{}-{count}", std::process::id())
}

/// A veth request with the plainest settings.
pub(crate) fn veth<'a>(host: &'a str, peer_name: &'a str, peer_ns: &'a NetNs) -> VethRequest<'a> {
    VethRequest {
        host,
        mtu: 1500,
        host_mac: None,
        master: None,
        hairpin: false,
        host_up: true,
        peer_name,
        peer_ns: Some(peer_ns),
        peer_mac: None,
        alias: None,
    }
}

/// Two namespaces, joined by a veth `a0` to `b0` that is up on both ends, with these addresses. It
/// carries frames: until the kernel has looked after a new carrier (net/core/link_watch.c), which
/// takes longer where much goes on, what is sent is dropped without a word.
pub(crate) fn pair(a_addresses: &[&str], b_addresses: &[&str]) -> (World, World, VethPair) {
    let (a, b) = (World::new(), World::new());
    let (mut a_netlink, mut b_netlink) = (a.netlink(), b.netlink());
    let pair = a_netlink.add_veth(&veth("a0", "b0", &b.ns)).unwrap();
    b_netlink.set_up(pair.peer).unwrap();
    for address in a_addresses {
        a_netlink.add_address(pair.host, net(address)).unwrap();
    }
    for address in b_addresses {
        b_netlink.add_address(pair.peer, net(address)).unwrap();
    }
    for (netlink, end) in [(&mut a_netlink, pair.host), (&mut b_netlink, pair.peer)] {
        wait_for("a carrier", || {
            let link = netlink.link_by_index(end).unwrap();
            link.filter(|link| link.running)
        });
    }
    (a, b, pair)
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Asks until the answer comes, and fails with these words if it does not.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
