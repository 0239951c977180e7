//! What a TAP costs: one frame a system call, which is all that the crate tun-tap can do, beside
//! the super-frames of `hostnet::tap`. The same 60 KB go through both, in turn.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use fastpath::{GsoType, VnetHdr};
use hostnet::netns::NetNs;
use hostnet::{Netlink, Offloads, Route, Tap, TapOptions, TapQueue, UdpOptions, UdpSocket};
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;
use serde::Serialize;
use tun_tap::{Iface, Mode};
use wire::{Mac, checksum, ethernet};

use crate::latency::{Latency, Micros};
use crate::pods::{self, Pods};

/// Payload of a datagram or segment: fits any underlay of 1500.
const SEGMENT: u16 = 1400;
/// As many as fit a super-frame of 64 KB.
const SEGMENTS: u16 = 44;
/// What is moved in a round, in bytes of payload.
const PAYLOAD: usize = SEGMENT as usize * SEGMENTS as usize;
/// Rounds before those that count.
const WARM_UP: u32 = 50;
/// Headers of a written frame: Ethernet, IPv4 and TCP.
const HEADERS: usize = 54;

/// Flags of `weft-bench tap`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rounds, in each of which 60 KB go both ways
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rounds: u32,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Bytes of payload that each round moves each way.
    payload: usize,
    /// Frames that they are on the wire.
    frames: u16,
    tun_tap: Cost,
    hostnet: Cost,
    /// tun-tap's median in terms of hostnet's.
    read_ratio: f64,
    write_ratio: f64,
}

/// Of one device, for a round.
#[derive(Debug, Serialize)]
struct Cost {
    read_calls: usize,
    read: Latency,
    write_calls: usize,
    write: Latency,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let home = Pods::create("tap", 1)?;
    let netns = NetNs::open(&NetNs::path(&home.names()[0]))?;
    let (plain, offloaded) = netns.run(|| measure(args.rounds, interrupt))??;
    let report = Report {
        payload: PAYLOAD,
        frames: SEGMENTS,
        read_ratio: plain.read.ratio_to(&offloaded.read),
        write_ratio: plain.write.ratio_to(&offloaded.write),
        tun_tap: plain,
        hostnet: offloaded,
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn measure(rounds: u32, interrupt: &Interrupt) -> anyhow::Result<(Cost, Cost)> {
    let mut plain = Subject::new(Device::tun_tap("plain0")?, "plain0", 1)?;
    let mut offloaded = Subject::new(Device::hostnet("super0")?, "super0", 2)?;
    for round in 0..WARM_UP + rounds {
        interrupt.check()?;
        for subject in [&mut plain, &mut offloaded] {
            let (read, write) = (subject.read()?, subject.write()?);
            if round >= WARM_UP {
                subject.reads.push(read);
                subject.writes.push(write);
            }
        }
    }
    Ok((plain.cost()?, offloaded.cost()?))
}

/// A TAP of either kind; neither waits.
#[derive(Debug)]
enum Device {
    TunTap(Iface),
    Hostnet { queue: TapQueue, _tap: Tap },
}

impl Device {
    fn tun_tap(name: &str) -> anyhow::Result<Self> {
        let iface = Iface::without_packet_info(name, Mode::Tap).context("open a TAP by tun-tap")?;
        iface
            .set_non_blocking()
            .context("set tun-tap's TAP non-blocking")?;
        Ok(Self::TunTap(iface))
    }

    fn hostnet(name: &str) -> anyhow::Result<Self> {
        let options = TapOptions {
            name,
            queues: 1,
            vnet_hdr: true,
            offloads: Offloads::ALL,
        };
        let mut tap = Tap::open(&options)?;
        let queue = tap.take_queues().pop().context("a TAP without a queue")?;
        Ok(Self::Hostnet { queue, _tap: tap })
    }

    fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::TunTap(iface) => iface.recv(buffer),
            Self::Hostnet { queue, .. } => queue.read(buffer),
        }
    }

    /// Bytes before the payload of a UDP datagram that is read: Ethernet, IPv4, UDP, and what the
    /// device puts before them.
    fn read_headers(&self) -> usize {
        match self {
            Self::TunTap(_) => 42,
            Self::Hostnet { .. } => 42 + VnetHdr::LEN,
        }
    }

    fn write(&self, frame: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::TunTap(iface) => iface.send(frame),
            Self::Hostnet { queue, .. } => queue.write(frame),
        }
    }
}

/// A device, what goes through it, and what that took.
#[derive(Debug)]
struct Subject {
    device: Device,
    /// Sends what the device reads: a train to a multicast group that is routed to it, for which
    /// the kernel asks no neighbour.
    socket: UdpSocket,
    group: SocketAddr,
    train: Vec<u8>,
    /// What the device writes.
    frames: Vec<Vec<u8>>,
    buffer: Vec<u8>,
    read_calls: usize,
    reads: Vec<Duration>,
    writes: Vec<Duration>,
}

impl Subject {
    fn new(device: Device, name: &str, number: u8) -> anyhow::Result<Self> {
        let here = Ipv4Addr::new(10, 99, number, 1);
        let group = Ipv4Addr::new(239, 99, number, 1);
        let mut netlink = Netlink::open()?;
        let index = netlink.link(name)?.context("the TAP is not there")?.index;
        netlink.add_address(index, format!("{here}/24").parse()?)?;
        netlink.set_up(index)?;
        netlink.add_route(&Route {
            dst: IpNet::from(IpAddr::from(group)),
            gateway: None,
            oif: Some(index),
            src: None,
            onlink: false,
        })?;
        let frames = match device {
            Device::TunTap(_) => (0..SEGMENTS).map(|_| tcp_frame(SEGMENT.into())).collect(),
            Device::Hostnet { .. } => vec![super_frame()],
        };
        Ok(Self {
            device,
            socket: UdpSocket::bind(&UdpOptions::new(SocketAddr::from((here, 0))))?,
            group: SocketAddr::from((group, 9)),
            train: vec![0xa5; PAYLOAD],
            frames,
            buffer: vec![0; 1 << 17],
            read_calls: 0,
            reads: Vec::new(),
            writes: Vec::new(),
        })
    }

    /// Time to read a train that the kernel has queued.
    fn read(&mut self) -> anyhow::Result<Duration> {
        self.socket
            .send_train(self.group, &self.train, SEGMENT)
            .context("send a train")?;
        let (mut left, mut calls) = (PAYLOAD, 0);
        let begin = Instant::now();
        // The whole train is queued when the send returns: an empty queue means that it was not.
        while left > 0 {
            let read = self.device.read(&mut self.buffer).context("read the TAP")?;
            let payload = read.saturating_sub(self.device.read_headers());
            // The kernel's own words (neighbour discovery, group membership) are shorter.
            if payload >= SEGMENT.into() {
                left = left.saturating_sub(payload);
                calls += 1;
            }
        }
        self.read_calls = calls;
        Ok(begin.elapsed())
    }

    /// Time to write as much, which the kernel throws away: it is for another station.
    fn write(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        for frame in &self.frames {
            let written = self.device.write(frame).context("write the TAP")?;
            ensure!(
                written == frame.len(),
                "wrote {written} of {} bytes",
                frame.len()
            );
        }
        Ok(begin.elapsed())
    }

    fn cost(&self) -> anyhow::Result<Cost> {
        let (Some(read), Some(write)) = (
            Latency::of(self.reads.iter().copied()),
            Latency::of(self.writes.iter().copied()),
        ) else {
            bail!("no round was measured");
        };
        Ok(Cost {
            read_calls: self.read_calls,
            read,
            write_calls: self.frames.len(),
            write,
        })
    }
}

/// A TCP frame between two strangers, its checksum left to the device.
fn tcp_frame(payload: usize) -> Vec<u8> {
    let len = u16::try_from(HEADERS - ethernet::HEADER_LEN + payload).unwrap_or(u16::MAX);
    let [src, dst] = [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 98, 0, 2)];
    let mut frame = ethernet::header(
        Mac([2, 0, 0, 0, 0, 9]),
        Mac([2, 0, 0, 0, 0, 7]),
        ethernet::ETHERTYPE_IPV4,
    )
    .to_vec();
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&len.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, checksum::PROTOCOL_TCP]);
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..].copy_from_slice(&dst.octets());
    let sum = checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    let mut tcp = [
        0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ];
    let pseudo = checksum::pseudo_header_v4(src, dst, checksum::PROTOCOL_TCP, len - 20);
    tcp[16..18].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    frame.extend(tcp);
    frame.resize(HEADERS + payload, 0xa5);
    frame
}

/// All segments as one frame, for the kernel to cut where it must.
fn super_frame() -> Vec<u8> {
    let header = VnetHdr {
        needs_csum: true,
        gso: GsoType::TcpV4,
        ecn: false,
        hdr_len: 54,
        gso_size: SEGMENT,
        csum_start: 34,
        csum_offset: 16,
    };
    let mut frame = header.bytes().to_vec();
    frame.extend(tcp_frame(PAYLOAD));
    frame
}

fn print(report: &Report) {
    println!(
        "A TAP: {} bytes in {} frames each way, medians\n",
        report.payload, report.frames
    );
    println!(
        "{:12}{:>12}{:>12}{:>14}{:>12}",
        "", "read calls", "time", "write calls", "time"
    );
    for (title, cost) in [("tun-tap", &report.tun_tap), ("hostnet", &report.hostnet)] {
        println!(
            "{title:12}{:>12}{:>12}{:>14}{:>12}",
            cost.read_calls,
            Micros(cost.read.p50_ns),
            cost.write_calls,
            Micros(cost.write.p50_ns)
        );
    }
    println!(
        "{:12}{:>12}{:>11.1}x{:>14}{:>11.1}x",
        "ratio", "", report.read_ratio, "", report.write_ratio
    );
}
