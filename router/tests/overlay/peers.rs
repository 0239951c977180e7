//! How routers find each other, and what they refuse.

use control::PeerState;

use crate::cluster::{assert_all_reach, cluster, eventually};

/// One address is enough to join: the others are learned.
#[test]
fn a_node_needs_one_address_to_join() {
    let world = cluster(5, 1, &[]);
    for node in &world.nodes {
        let status = node.status().unwrap();
        let mut names: Vec<_> = status.peers.iter().map(|peer| peer.name.as_str()).collect();
        names.sort_unstable();
        let mut others: Vec<_> = world.nodes.iter().map(|n| n.layout.name.as_str()).collect();
        others.retain(|name| *name != node.layout.name);
        assert_eq!(names, others);
        assert!(
            status
                .peers
                .iter()
                .all(|peer| peer.state == PeerState::Up && peer.mtu == 1450)
        );
        assert!(!status.overlay.encrypted);
    }
    assert_all_reach(&world);
}

/// A message of 4 GB, garbage, and silence: each ends that connection and nothing else (I5, I6).
#[test]
fn a_hostile_control_connection_disturbs_nobody() {
    use std::io::{Read as _, Write as _};
    let world = cluster(2, 1, &[]);
    let stranger = crate::cluster::Stranger::join(&world, 66);
    let target = (world.nodes[0].layout.address, 6783);
    let speak = |bytes: &[u8]| {
        let stream = stranger.netns.run(|| std::net::TcpStream::connect(target));
        let mut stream = stream.unwrap().unwrap();
        let _ = stream.write_all(bytes);
        stream
            .set_read_timeout(Some(crate::cluster::PATIENCE))
            .unwrap();
        // The router hangs up, with or without a last word.
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(
            ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        );
    };
    speak(&[0xff; 4]);
    speak(b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n");
    speak(&[0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]);
    speak(&[]);
    eventually("both still see each other", || {
        world.nodes.iter().all(|node| {
            node.status()
                .is_ok_and(|s| s.peers.iter().any(|peer| peer.state == PeerState::Up))
        })
    });
    assert_all_reach(&world);
}
