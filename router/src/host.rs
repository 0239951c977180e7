//! This machine's side of the overlay: the bridge with its TAP port and its address, and what the
//! underlay looks like.
//!
//! Everything goes through plans (`hostnet::plan`): what is there and what should be make a list of
//! steps, empty if nothing is to be done, so that a restart adopts what the last run left (I7).

mod underlay;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context as _;
use hostnet::link::LinkKind;
use hostnet::netlink::Netlink;
use hostnet::plan::{self, BridgeSpec, Step, TapSpec};
use hostnet::sysctl::{self, Family};
use ipnet::IpNet;
use wire::{Mac, PeerId};

use crate::settings::Settings;
pub use underlay::{Interface, Underlay, Way, find};

/// Packets that wait in the TAP for a worker: as many as a network card of ordinary size holds
/// back. The kernel's 500 is two super-frames' worth of acknowledgements.
const TAP_QUEUE: u32 = 1000;
/// Addresses that stand for the world when the default route is asked for: kept for documentation,
/// so that nothing is ever there (RFC 5737 §3, RFC 3849 §2).
const WORLD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The machine, as far as the router changes it.
#[derive(Debug)]
pub struct Host {
    netlink: Netlink,
    spec: BridgeSpec,
    tap: String,
    /// Whether the bridge was made here, rather than found.
    made: bool,
}

impl Host {
    /// Speaks to the kernel about the calling thread's network namespace. Nothing is touched yet.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn open(settings: &Settings, id: PeerId) -> anyhow::Result<Self> {
        let netlink = Netlink::open().context("speak netlink with the kernel")?;
        let [a, b, c, d, e, f, ..] = id.0;
        let spec = BridgeSpec {
            name: settings.bridge.clone(),
            owner: settings.name.to_string(),
            // From the identity, so that after a reboot pods find their gateway where it was.
            mac: Some(Mac::local([a, b, c, d, e, f])),
            mtu: 0,
            addresses: Vec::new(),
            tap: None,
            adopt: false,
        };
        Ok(Self {
            netlink,
            spec,
            tap: settings.tap.clone(),
            made: false,
        })
    }

    /// Finds the underlay on the way to these peers, or else to the world.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn underlay(&mut self, peers: &[IpAddr]) -> anyhow::Result<Underlay> {
        let interfaces = self.interfaces()?;
        let to_peers = self.ways(peers);
        let to_world = self.ways(&WORLD);
        Ok(find(&interfaces, &to_peers, &to_world))
    }

    /// Every address of this machine, at which a datagram would come back to it.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn own_addresses(&mut self) -> anyhow::Result<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for link in self.netlink.links()? {
            addresses.extend(self.netlink.addresses(link.index)?.iter().map(IpNet::addr));
        }
        Ok(addresses)
    }

    /// The TAP of a router that lives: one with our TAP's name, or with our mark on our bridge. A
    /// TAP does not outlive its process.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn tap_in_use(&mut self) -> anyhow::Result<Option<String>> {
        let links = self.netlink.links()?;
        let bridge = links.iter().find(|link| link.name == self.spec.name);
        let bridge = bridge.map(|link| link.index);
        let mark = self.spec.mark();
        let tap = links.into_iter().find(|link| {
            let marked = link.alias.as_ref() == Some(&mark) && link.kind == Some(LinkKind::Tun);
            link.name == self.tap || (marked && bridge.is_some() && link.master == bridge)
        });
        Ok(tap.map(|link| link.name))
    }

    /// Makes the bridge, or brings the one of the last run into line.
    ///
    /// # Errors
    /// Somebody else's interface has the name, or the kernel refuses.
    pub fn raise_bridge(&mut self, mtu: u16, addresses: Vec<IpNet>) -> anyhow::Result<()> {
        self.spec.mtu = mtu;
        self.spec.addresses = addresses;
        self.apply()?;
        // A pod must not be able to give this node routes by advertising itself as a router.
        set(&self.spec.name, "accept_ra", "0");
        Ok(())
    }

    /// Lets this machine forward packets of the range's family, as pods need to leave the overlay.
    pub fn forward(&self, range: IpNet) {
        let name = match range {
            IpNet::V4(_) => "net/ipv4/ip_forward",
            IpNet::V6(_) => "net/ipv6/conf/all/forwarding",
        };
        if let Err(error) = sysctl::write(name, "1") {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(
                setting = name, %error, cause,
                "this machine does not forward: pods cannot leave the overlay until it does"
            );
        }
    }

    /// Puts the TAP, which is open by now, on the bridge.
    ///
    /// # Errors
    /// Something else has the TAP's name, or the kernel refuses.
    pub fn join_tap(&mut self) -> anyhow::Result<()> {
        // The port itself has nothing to say on the overlay: no solicitations, no MLD reports.
        set(&self.tap, "disable_ipv6", "1");
        self.spec.tap = Some(TapSpec {
            name: self.tap.clone(),
            tx_queue_len: TAP_QUEUE,
        });
        self.apply()
    }

    /// Names of all veths of this machine.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn veths(&mut self) -> anyhow::Result<BTreeSet<String>> {
        let links = self.netlink.links()?.into_iter();
        let veths = links.filter(|link| link.kind == Some(LinkKind::Veth));
        Ok(veths.map(|link| link.name).collect())
    }

    /// Gives the bridge its addresses, and no others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_addresses(&mut self, addresses: Vec<IpNet>) -> anyhow::Result<()> {
        self.spec.addresses = addresses;
        self.apply()
    }

    /// The bridge's Ethernet address, as the kernel has it.
    ///
    /// # Errors
    /// The kernel cannot be asked, or the bridge is gone.
    pub fn bridge_mac(&mut self) -> anyhow::Result<Mac> {
        let link = self.netlink.link(&self.spec.name)?;
        Ok(link
            .with_context(|| format!("bridge {} is gone", self.spec.name))?
            .mac)
    }

    /// Removes the bridge if it is ours and no pod is on it: with pods it stays, and the next run
    /// adopts it (I7). The TAP must be closed by now, or is left to vanish with its process.
    /// Returns whether the bridge is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lower_bridge(&mut self) -> anyhow::Result<bool> {
        let Some(bridge) = self.netlink.link(&self.spec.name)? else {
            return Ok(true);
        };
        let links = self.netlink.links()?;
        let on_it = links
            .iter()
            .filter(|link| link.master == Some(bridge.index));
        let pods = on_it.filter(|link| link.name != self.tap).count();
        if pods > 0 {
            tracing::info!(
                bridge = self.spec.name,
                pods,
                "the bridge stays, for it has pods"
            );
            return Ok(false);
        }
        let observed = plan::observe(&mut self.netlink, &self.spec)?;
        let teardown = plan::teardown_plan(&observed, &self.spec);
        let gone = !teardown.is_empty();
        let errors = plan::apply_all(&mut self.netlink, &teardown);
        match errors.into_iter().next() {
            None => Ok(gone),
            Some(error) => Err(error.into()),
        }
    }

    /// Takes away what a start has made that went no further. A bridge that was there before
    /// stays as it is: somebody may use it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn undo(&mut self) -> anyhow::Result<()> {
        if self.made {
            self.lower_bridge().map(drop)
        } else {
            Ok(())
        }
    }

    fn apply(&mut self) -> anyhow::Result<()> {
        let observed = plan::observe(&mut self.netlink, &self.spec)?;
        let plan = plan::bridge_plan(&observed, &self.spec)?;
        for step in &plan.steps {
            tracing::debug!(%step, "changing the host");
            self.made |= matches!(step, Step::AddBridge { .. });
        }
        plan::apply(&mut self.netlink, &plan)?;
        Ok(())
    }

    /// What may be the underlay: interfaces that are up, without loopback and the overlay's own.
    fn interfaces(&mut self) -> anyhow::Result<Vec<Interface>> {
        let links = self.netlink.links()?;
        let bridge = links
            .iter()
            .find(|link| link.name == self.spec.name)
            .map(|link| link.index);
        let mut interfaces = Vec::new();
        for link in links {
            let overlay = Some(link.index) == bridge
                || (bridge.is_some() && link.master == bridge)
                || link.name == self.tap;
            if overlay || !link.up {
                continue;
            }
            let mut addresses = self.netlink.addresses(link.index)?;
            addresses.retain(|address| is_reachable(address.addr()));
            interfaces.push(Interface {
                index: link.index,
                name: link.name,
                mtu: link.mtu,
                addresses,
            });
        }
        Ok(interfaces)
    }

    fn ways(&mut self, to: &[IpAddr]) -> Vec<Way> {
        let mut ways = Vec::new();
        for &to in to {
            // No way, or a kernel without IPv6: neither is a fault of the caller.
            if let Ok(Some(route)) = self.netlink.route_to(to) {
                ways.push(Way {
                    to,
                    oif: route.oif,
                    mtu: route.mtu,
                });
            }
        }
        ways
    }
}

/// Whether other machines may reach the address.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Sets what is good to have and not worth stopping for: `/proc/sys` is read-only in many
/// containers.
fn set(interface: &str, setting: &str, value: &str) {
    if !sysctl::has_ipv6() {
        return;
    }
    let name = sysctl::interface(Family::V6, interface, setting);
    if let Err(error) = sysctl::write(&name, value) {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(setting = name, value, %error, cause, "cannot set; continuing without");
    }
}

#[cfg(test)]
mod tests;
