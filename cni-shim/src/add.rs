//! `ADD`: makes a pod's interface on the overlay.

use std::net::IpAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use control::{AttachRequest, Attachment, AttachmentRef, Client, ClientError, ErrorCode};
use hostnet::sysctl::{self, Family, SysctlError};
use hostnet::{Link, LinkKind, NetNs, Netlink, VethRequest};
use ipnet::IpNet;
use serde_json::Value;
use wire::Mac;

use crate::config::{Config, Dns, Route};
use crate::delegate::{Delegate, Gift};
use crate::env::{Parameters, Verb};
use crate::error::{CniError, Code};
use crate::namespace::{self, Held};
use crate::result::{Interface, PrevResult, Wired, add_result};
use crate::{del, veth};

/// An attachment that was made.
pub(crate) struct Added {
    pub(crate) result: Value,
    pub(crate) summary: String,
    pub(crate) undo: Undo,
}

/// Attaches the pod, or leaves nothing behind.
pub(crate) fn add(
    parameters: &Parameters,
    config: &Config,
    delegate: Option<Delegate>,
    router: &Client,
    release: Client,
) -> Result<Added, CniError> {
    let attachment = &parameters.attachment;
    let netns = parameters
        .netns
        .as_deref()
        .expect("ADD was read with a namespace");
    let prev = config
        .prev_result
        .clone()
        .map(PrevResult::parse)
        .transpose()?;
    let ns = namespace::open(netns)?;
    namespace::refuse_own(&ns, netns)?;
    // From here on no other call changes this container's attachments: whoever finds the name
    // free and asks the router for the address also makes the interface.
    let held = Held::wait(&ns)?;
    let mut host =
        Netlink::open().map_err(|error| CniError::kernel("netlink cannot be opened", &error))?;
    let mut pod = Netlink::open_in(&ns)
        .map_err(|error| CniError::kernel("netlink cannot be opened in the pod", &error))?;
    refuse_taken_name(&mut pod, &attachment.ifname)?;
    // Its other end is in a namespace that this container had before: the name above is free.
    if veth::find(&mut host, attachment)?.is_some() {
        veth::remove(&mut host, attachment)?;
    }

    let mut undo = Undo {
        release,
        attachment: attachment.clone(),
        veth: false,
        router: false,
        delegate: None,
        _held: held,
    };
    let gift = match delegate {
        Some(delegate) => {
            let gift = delegate.add();
            // One that failed may hold something all the same.
            undo.delegate = Some(delegate);
            match gift {
                Ok(gift) => Some(gift),
                Err(error) => return Err(error.and(&undo.run())),
            }
        }
        None => None,
    };
    let mac = config.mac.or(parameters.args.mac);
    let mac = mac.unwrap_or_else(|| attachment.mac());
    let request = attach_request(parameters, config, netns, mac, gift.as_ref());
    let answer = router.attach(&request);
    undo.router = !matches!(&answer, Err(error) if nothing_was_given(error));
    let given = match answer {
        Ok(answer) => Given::of(config, answer, gift),
        Err(error) => return Err(CniError::from(error).and(&undo.run())),
    };
    let wired = Wiring {
        parameters,
        config,
        given: &given,
        mac,
        netns,
        ns: &ns,
    }
    .make(&mut host, &mut pod, &mut undo.veth);
    match wired {
        Ok((wired, remark)) => Ok(Added {
            result: add_result(config, prev.as_ref(), &wired),
            summary: format!(
                "{} on {}{remark}",
                list(&given.addresses),
                given.attachment.bridge
            ),
            undo,
        }),
        Err(error) => Err(error.and(&undo.run())),
    }
}

/// What an interface is configured with, whoever gave it.
struct Given {
    /// The router's answer.
    attachment: Attachment,
    addresses: Vec<IpNet>,
    /// One of each family, where there is one.
    gateways: Vec<IpAddr>,
    routes: Vec<Route>,
    /// A default route that nobody asked for gives way to one that is there.
    routes_wanted: bool,
    dns: Dns,
}

impl Given {
    fn of(config: &Config, attachment: Attachment, gift: Option<Gift>) -> Self {
        let own = with_gateway(config.gateway, &attachment.gateways);
        let (addresses, gateways, routes, dns) = match gift {
            None => (attachment.addresses.clone(), own, None, Dns::default()),
            Some(gift) => {
                // The node's own address serves where it can be reached.
                let is_near = |gw: &IpAddr| gift.addresses.iter().any(|net| net.contains(gw));
                let mut gateways = gift.gateways;
                for gw in own.into_iter().filter(is_near) {
                    if !gateways.iter().any(|has| has.is_ipv4() == gw.is_ipv4()) {
                        gateways.push(gw);
                    }
                }
                (gift.addresses, gateways, Some(gift.routes), gift.dns)
            }
        };
        let asked_for = config.routes.clone().or(routes);
        Self {
            routes_wanted: asked_for.is_some(),
            routes: match asked_for {
                Some(routes) => with_next_hops(routes, &gateways),
                None => default_routes(&gateways),
            },
            attachment,
            addresses,
            gateways,
            dns,
        }
    }
}

/// The routes, those without a next hop through the gateway of their family.
pub(crate) fn with_next_hops(routes: Vec<Route>, gateways: &[IpAddr]) -> Vec<Route> {
    let gateway_of = |dst: IpNet| {
        let same = |gw: &&IpAddr| gw.is_ipv4() == dst.addr().is_ipv4();
        gateways.iter().find(same).copied()
    };
    let complete = |route: Route| Route {
        dst: route.dst.trunc(),
        gw: route.gw.or_else(|| gateway_of(route.dst)),
    };
    routes.into_iter().map(complete).collect()
}

/// The gateways, with the one that the configuration names instead of the one of its family.
pub(crate) fn with_gateway(named: Option<IpAddr>, gateways: &[IpAddr]) -> Vec<IpAddr> {
    let others = gateways
        .iter()
        .filter(|gw| named.is_none_or(|named| named.is_ipv4() != gw.is_ipv4()));
    named.iter().chain(others).copied().collect()
}

/// Whether the router certainly holds no address for a request that ended like this. Otherwise it
/// may have given one and failed to say so.
pub(crate) fn nothing_was_given(error: &ClientError) -> bool {
    match error {
        ClientError::Api(error) => !matches!(error.code, ErrorCode::Deadline | ErrorCode::Internal),
        ClientError::Connect { .. } => true,
        ClientError::Deadline { .. } | ClientError::Protocol { .. } => false,
    }
}

/// Takes an attachment back that is only half made, or that nobody is going to hear of.
pub(crate) struct Undo {
    release: Client,
    attachment: AttachmentRef,
    /// Whether an interface was made.
    veth: bool,
    /// Whether the router may have given or noted something.
    router: bool,
    /// The plugin that was asked for addresses, if it was another.
    delegate: Option<Delegate>,
    /// Until all is undone nobody else begins.
    _held: Held,
}

impl Undo {
    /// Undoes everything, and returns what could not be undone.
    pub(crate) fn run(self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.veth {
            let removed = Netlink::open()
                .map_err(|error| CniError::kernel("netlink cannot be opened", &error))
                .and_then(|mut netlink| veth::remove(&mut netlink, &self.attachment));
            if let Err(error) = removed {
                // A pod that still has the interface still has the address.
                return vec![error.to_string()];
            }
        }
        if self.router
            && let Err(error) = del::release(&self.release, &self.attachment.into())
        {
            errors.push(error.to_string());
        }
        if let Some(delegate) = self.delegate
            && let Err(error) = delegate.call(Verb::Del)
        {
            errors.push(error.to_string());
        }
        errors
    }
}

/// What an interface is made of.
struct Wiring<'a> {
    parameters: &'a Parameters,
    config: &'a Config,
    given: &'a Given,
    mac: Mac,
    netns: &'a Path,
    ns: &'a NetNs,
}

impl Wiring<'_> {
    /// Makes and configures the pair. `made` is set as soon as there is something to undo. Returns
    /// the attachment and a remark for the log.
    fn make(
        &self,
        host: &mut Netlink,
        pod: &mut Netlink,
        made: &mut bool,
    ) -> Result<(Wired, String), CniError> {
        let ifname = &self.parameters.attachment.ifname;
        if self.given.addresses.is_empty() {
            let msg = "the router gave no address";
            return Err(CniError::new(Code::Router, msg, "see its log"));
        }
        let mtu = self.mtu()?;
        let bridge = self.bridge(host)?;
        let host_name = self.parameters.attachment.host_veth();
        let request = VethRequest {
            host: &host_name,
            mtu,
            host_mac: None,
            master: Some(bridge.index),
            hairpin: self.config.hairpin,
            host_up: true,
            peer_name: ifname,
            peer_ns: Some(self.ns),
            peer_mac: Some(self.mac),
            alias: Some(&self.parameters.attachment.alias()),
        };
        let pair = host
            .add_veth(&request)
            .map_err(|error| CniError::kernel("the veth pair cannot be made", &error))?;
        *made = true;

        let missing = |what: &str| {
            let msg = format!("interface {what} is gone right after it was made");
            CniError::new(Code::Kernel, msg, "was the container stopped?")
        };
        let in_pod = |doing: &'static str| {
            move |error| CniError::kernel(format!("cannot {doing} {ifname} in the pod"), &error)
        };
        let link = pod
            .link_by_index(pair.peer)
            .map_err(in_pod("read"))?
            .ok_or_else(|| missing(ifname))?;
        for &address in &self.given.addresses {
            pod.add_address(link.index, address)
                .map_err(in_pod("set an address of"))?;
        }
        pod.set_up(link.index).map_err(in_pod("bring up"))?;
        let mut routes = Vec::new();
        for route in &self.given.routes {
            match pod.add_route(&self.kernel_route(route, link.index)) {
                Ok(()) => routes.push(route.clone()),
                // A pod with several networks keeps the default route of the first.
                Err(error) if error.is_exists() && !self.given.routes_wanted => {}
                Err(error) => return Err(in_pod("add a route through")(error)),
            }
        }
        let host_link = wait_for_carrier(host, pair.host)?.ok_or_else(|| missing(&host_name))?;
        let remark = match announce(self.ns, pod, &link) {
            Ok(()) => String::new(),
            // Others learn where the pod is from its first frame, too.
            Err(error) => format!(" (not announced: {error})"),
        };

        let interface = |name: &str, mac: Mac, sandbox: String| Interface {
            name: name.to_owned(),
            mac: Some(mac),
            mtu: Some(mtu.into()),
            sandbox,
        };
        let sandbox = self.netns.to_string_lossy().into_owned();
        let wired = Wired {
            host: interface(&host_name, host_link.mac, String::new()),
            pod: interface(ifname, link.mac, sandbox),
            addresses: self.given.addresses.clone(),
            gateways: self.given.gateways.clone(),
            routes,
            dns: self.given.dns.clone(),
        };
        Ok((wired, remark))
    }

    /// The configuration's MTU, or the overlay's, which is the upper limit.
    fn mtu(&self) -> Result<u16, CniError> {
        let largest = self.given.attachment.mtu;
        let mtu = self.config.mtu.unwrap_or(largest);
        let has_ipv6 = self
            .given
            .addresses
            .iter()
            .any(|address| address.addr().is_ipv6());
        let bad = |why: String| {
            Err(CniError::new(
                Code::InvalidConfig,
                format!("mtu={mtu} is not valid"),
                why,
            ))
        };
        match mtu {
            _ if mtu > largest => bad(format!("the overlay carries {largest} bytes")),
            _ if has_ipv6 && mtu < IPV6_MIN_MTU => bad(format!("IPv6 needs {IPV6_MIN_MTU} bytes")),
            mtu => Ok(mtu),
        }
    }

    /// The router's bridge.
    fn bridge(&self, host: &mut Netlink) -> Result<Link, CniError> {
        let name = &self.given.attachment.bridge;
        if let Some(wanted) = self.config.bridge.as_ref().filter(|wanted| *wanted != name) {
            return Err(CniError::new(
                Code::InvalidConfig,
                format!("bridge={wanted:?} is not valid"),
                format!("the router's bridge is {name:?}; leave the key out"),
            ));
        }
        let found = host
            .link(name)
            .map_err(|error| CniError::kernel(format!("bridge {name} cannot be read"), &error))?;
        match found {
            Some(link) if link.kind == Some(LinkKind::Bridge) => Ok(link),
            Some(_) => Err(CniError::new(
                Code::Kernel,
                format!("{name} is not a bridge"),
                "remove or rename that interface and restart `weft run`",
            )),
            None => Err(CniError::new(
                Code::Kernel,
                format!("bridge {name} does not exist"),
                "restart `weft run`, and let it run in the network namespace that kubelet runs in",
            )),
        }
    }

    fn kernel_route(&self, route: &Route, index: u32) -> hostnet::Route {
        let on_link = |gw: IpAddr| self.given.addresses.iter().any(|net| net.contains(&gw));
        hostnet::Route {
            dst: route.dst,
            gateway: route.gw,
            oif: Some(index),
            src: None,
            onlink: route.gw.is_some_and(|gw| !on_link(gw)),
        }
    }
}

/// Everything goes through the node, unless the configuration says otherwise.
pub(crate) fn default_routes(gateways: &[IpAddr]) -> Vec<Route> {
    let everything = |gw: &IpAddr| match gw {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    };
    gateways
        .iter()
        .map(|gw| Route {
            dst: everything(gw),
            gw: Some(*gw),
        })
        .collect()
}

/// Smallest MTU that IPv6 works over (RFC 8200 §5).
const IPV6_MIN_MTU: u16 = 1280;

fn attach_request(
    parameters: &Parameters,
    config: &Config,
    netns: &Path,
    mac: Mac,
    gift: Option<&Gift>,
) -> AttachRequest {
    // With another giver these were for it, and it has seen them.
    let ours = gift.is_none();
    let address = config.address.or(parameters.args.address);
    AttachRequest {
        container_id: parameters.attachment.container_id.clone(),
        ifname: parameters.attachment.ifname.clone(),
        netns: Some(netns.to_string_lossy().into_owned()),
        network: Some(config.name.clone()),
        pod: parameters.args.pod.clone(),
        subnet: config.subnet,
        address: address.filter(|_| ours),
        mac: Some(mac),
        addresses: gift.map(|gift| gift.addresses.clone()).unwrap_or_default(),
    }
}

fn refuse_taken_name(pod: &mut Netlink, ifname: &str) -> Result<(), CniError> {
    let found = pod
        .link(ifname)
        .map_err(|error| CniError::kernel("the pod's interfaces cannot be read", &error))?;
    match found {
        None => Ok(()),
        Some(_) => Err(CniError::new(
            Code::InvalidEnvironment,
            format!("CNI_IFNAME={ifname:?} is taken: the pod has an interface of this name"),
            "call DEL before ADD is repeated",
        )),
    }
}

/// Waits until the bridge forwards what comes from the pod: an announcement that is sent before
/// is lost. The kernel gets there by itself within a millisecond, after both ends are up.
fn wait_for_carrier(host: &mut Netlink, index: u32) -> Result<Option<Link>, CniError> {
    let until = Instant::now() + LONGEST_CARRIER_WAIT;
    loop {
        let link = host
            .link_by_index(index)
            .map_err(|error| CniError::kernel("the host's interface cannot be read", &error))?;
        match link {
            Some(link) if !link.running && Instant::now() < until => thread::sleep(CARRIER_PAUSE),
            link => return Ok(link),
        }
    }
}

/// The kernel looks after changed links at once or after a second (net/core/link_watch.c); pods
/// do not wait that long for the sake of an announcement.
const LONGEST_CARRIER_WAIT: Duration = Duration::from_millis(100);
const CARRIER_PAUSE: Duration = Duration::from_micros(200);

/// Tells everybody on the overlay where the address is now: who held it before may still be in
/// their tables.
///
/// The kernel sends the gratuitous ARP (RFC 5227 §3) and the unsolicited neighbour advertisement
/// (RFC 4861 §7.2.6) itself, when it is told to and the interface's MAC is set, even to what it
/// is. A raw socket would do, too, but closing one waits for a grace period of the whole kernel,
/// which is half of the time that an `ADD` takes. The setting stays: a MAC that another plugin of
/// the chain changes is announced as well.
fn announce(ns: &NetNs, pod: &mut Netlink, link: &Link) -> Result<(), String> {
    let allow = || {
        sysctl::write(
            &sysctl::interface(Family::V4, &link.name, "arp_notify"),
            "1",
        )?;
        if sysctl::has_ipv6() {
            sysctl::write(
                &sysctl::interface(Family::V6, &link.name, "ndisc_notify"),
                "1",
            )?;
        }
        Ok(())
    };
    ns.run(allow)
        .map_err(|error| error.to_string())?
        .map_err(|error: SysctlError| error.to_string())?;
    pod.set_mac(link.index, link.mac)
        .map_err(|error| error.to_string())
}

fn list(addresses: &[IpNet]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
