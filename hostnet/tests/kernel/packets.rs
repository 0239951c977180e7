use std::time::Duration;

use hostnet::PacketSocket;

use crate::world::pair;

const WAIT: Duration = Duration::from_secs(5);

/// An ethertype for experiments (IEEE 802 local experimental 1).
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

fn frame(tag: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(tag);
    frame.extend(EXPERIMENT);
    frame.extend([0x5a; 50]);
    frame
}

#[test]
fn frames_cross_as_they_are_and_know_their_direction() {
    let (a, b, made) = pair(&[], &[]);
    let from = a.run(|| PacketSocket::bind(made.host).unwrap());
    // A socket does not see what it sent itself.
    let mut beside = a.run(|| PacketSocket::bind(made.host).unwrap());
    let mut to = b.run(|| PacketSocket::bind(made.peer).unwrap());
    // Plain; with a VLAN tag; with a service tag outside of it.
    let tags = [
        &[][..],
        &[0x81, 0, 0x20, 7],
        &[0x88, 0xa8, 0, 9, 0x81, 0, 0x20, 7],
    ];
    for sent in tags.map(frame) {
        from.send(&sent).unwrap();
        for (socket, outgoing) in [(&mut to, false), (&mut beside, true)] {
            loop {
                let packet = socket.recv(WAIT).unwrap().expect("the frame comes");
                // The kernel's own multicast is about.
                if packet.bytes.get(6..12) == sent.get(6..12) {
                    assert_eq!(packet.bytes, sent);
                    assert_eq!((packet.outgoing, packet.truncated), (outgoing, false));
                    break;
                }
            }
        }
    }
}

#[test]
fn silence_ends_with_the_timeout() {
    let (a, _b, _) = pair(&[], &[]);
    let mut socket = a.run(|| PacketSocket::bind(1).unwrap());
    assert!(socket.recv(Duration::from_millis(20)).unwrap().is_none());
    assert!(a.run(|| PacketSocket::bind(4711)).is_err());
}
