//! WireGuard in userspace, by its cross-platform configuration protocol: the pods are routed through
//! its TUN.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hostnet::netlink::Netlink;
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;

use super::super::Testbed;
use super::{Peer, wait_for};

/// Key pairs of the two nodes (private, public), for tunnels that nothing secret ever goes through:
/// the private halves are the bytes 1 and 2 repeated.
const KEYS: [(&str, &str); 2] = [
    (
        "0101010101010101010101010101010101010101010101010101010101010101",
        "a4e09292b651c278b9772c569f5fa9bb13d906b46ab68c9df9dc2b4409f8a209",
    ),
    (
        "0202020202020202020202020202020202020202020202020202020202020202",
        "ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745ba05870e587d59",
    ),
];
const PORT: u16 = 51_820;
/// 1500 less IPv4 20, UDP 8, WireGuard 32, with room for IPv6 outside, as wg-quick(8) has it.
const MTU: u16 = 1420;
/// Where all implementations put their sockets.
const SOCKETS: &str = "/var/run/wireguard";

impl Testbed {
    pub(super) fn wireguard(&mut self, peer: Peer, interrupt: &Interrupt) -> anyhow::Result<()> {
        std::fs::create_dir_all(SOCKETS).with_context(|| format!("make {SOCKETS}"))?;
        let program = if peer == Peer::BoringTun {
            "boringtun-cli"
        } else {
            "gotatun"
        };
        for index in 0..2 {
            // The sockets of all namespaces are in one directory.
            let number = self.sides[index].number;
            let name = format!(
                "{}{}{number}",
                &peer.name()[..2],
                std::process::id() % 10_000
            );
            let arguments = ["--foreground", "--disable-drop-privileges", &name];
            self.daemon(index, program, &arguments, &[])?;
            let device = self.sides[index].device(&name, interrupt)?;
            let other = self.setup.address(3 - number);
            let socket = PathBuf::from(SOCKETS).join(format!("{name}.sock"));
            // A daemon ends when its socket is taken away, so that it goes after the daemon.
            self.files.push(socket.clone());
            configure(&socket, index, other, interrupt)?;
            let mut netlink = Netlink::open_in(&self.sides[index].node)?;
            let own = IpNet::new([10, 97, 0, number].into(), 24)?;
            netlink.add_address(device.index, own)?;
            netlink.set_mtu(device.index, MTU)?;
            self.sides[index].route(device.index, None, MTU)?;
        }
        Ok(())
    }
}

/// Keys, port and the one peer (wireguard.com/xplatform).
fn configure(
    socket: &Path,
    index: usize,
    other: IpAddr,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    wait_for(socket, interrupt)?;
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    let ((private, _), (_, public)) = (KEYS[index], KEYS[1 - index]);
    let request = format!(
        "set=1\nprivate_key={private}\nlisten_port={PORT}\npublic_key={public}\n\
         endpoint={other}:{PORT}\nallowed_ip=0.0.0.0/0\n\n"
    );
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    let mut buffer = [0; 256];
    while !answer.contains("errno=") {
        match stream.read(&mut buffer)? {
            0 => break,
            len => answer += &String::from_utf8_lossy(&buffer[..len]),
        }
    }
    if !answer.contains("errno=0") {
        bail!("it refused its configuration: {answer:?}");
    }
    Ok(())
}
