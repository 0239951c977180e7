//! A byte stream survives: what one pod sends is, to the bit, what another receives, over narrow and
//! wide underlays that lose packets.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use hostnet::netns::NetNs;
use mesh::SplitMix64;
use ring::digest::{Context, Digest, SHA256};
use router::lab::world::World;

use crate::cluster::{PATIENCE, cluster_on, counter, nft};

const MB: usize = 1 << 20;

/// 1 GB in all, while one datagram in a thousand is lost in each direction.
#[test]
fn a_gigabyte_survives_loss_on_every_mtu() {
    for (mtu, len) in [
        (576, 64 * MB),
        (1280, 128 * MB),
        (1500, 576 * MB),
        (9000, 256 * MB),
    ] {
        let world = cluster_on(2, 1, mtu, &[]);
        for node in &world.nodes {
            lose(&node.netns);
        }
        let (sent, received) = carry(&world, len);
        assert_eq!(sent.as_ref(), received.as_ref(), "underlay MTU {mtu}");
        let status = world.nodes[1].status().unwrap();
        assert_eq!(counter(&status, "bad_checksums"), 0, "underlay MTU {mtu}");
        let state = &status.peers[0].state;
        assert_eq!(*state, control::PeerState::Up, "underlay MTU {mtu}");
    }
}

/// Sends `len` bytes from the first pod to the second; the digests at both ends.
fn carry(world: &World, len: usize) -> (Digest, Digest) {
    let (from, to) = (&world.pods[0], &world.pods[1]);
    let address = to.address.addr();
    let listener = to
        .netns
        .run(|| TcpListener::bind((address, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    let stream = from
        .netns
        .run(|| TcpStream::connect_timeout(&target, PATIENCE));
    let mut sender = stream.unwrap().unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut digest, mut buffer) = (Context::new(&SHA256), vec![0; MB]);
            loop {
                match receiver.read(&mut buffer).unwrap() {
                    0 => return digest.finish(),
                    len => digest.update(&buffer[..len]),
                }
            }
        });
        let (mut digest, mut random) = (Context::new(&SHA256), SplitMix64::new(7));
        let mut block = vec![0; MB];
        for _ in 0..len / MB {
            for word in block.as_chunks_mut::<8>().0 {
                *word = random.next_u64().to_le_bytes();
            }
            digest.update(&block);
            sender.write_all(&block).unwrap();
        }
        drop(sender);
        (digest.finish(), receiving.join().unwrap())
    })
}

/// Drops one in a thousand of the overlay's datagrams that reach a node.
fn lose(node: &NetNs) {
    nft(
        node,
        "add table inet loss
         add chain inet loss in { type filter hook prerouting priority -300; }
         add rule inet loss in udp dport 6784 numgen random mod 1000 0 drop",
    );
}
