//! Over TCP on loopback, within this process.

use mesh::{Config, Hello, PeerState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wire::Vni;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn config(number: u8, control_port: u16) -> Config {
    let me = Hello {
        id: PeerId([number; 8]),
        name: format!("node{number}").parse().unwrap(),
        public_key: [number; 32],
        run: u64::from(number),
        control_port,
        vxlan_port: 6784,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: "test".to_owned(),
    };
    Config::new(me, u64::from(number))
}

/// A mesh on a free port, which it announces as its own.
fn node(number: u8, target: Option<SocketAddr>) -> (MeshHandle, mpsc::Receiver<MeshEvent>) {
    // The port is known only once it is bound, and the Hello carries it.
    let port = listener::bind(loopback())
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut config = config(number, port);
    config.targets.extend(target.map(Target::from));
    let (events, inbox) = mpsc::channel(64);
    let listen = SocketAddr::new(loopback().ip(), port);
    (start(config, listen, events).unwrap(), inbox)
}

async fn until_up(node: &MeshHandle, peers: usize) {
    let up = async {
        loop {
            let all = node.peers().await;
            if all
                .iter()
                .filter(|peer| peer.state == PeerState::Up)
                .count()
                == peers
            {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, up).await.expect("the peers come up");
}

#[tokio::test]
async fn three_nodes_join_through_one_address_and_one_leaves() {
    let (a, _in_a) = node(1, None);
    let (b, _in_b) = node(2, Some(a.address()));
    let (c, _in_c) = node(3, Some(a.address()));
    for node in [&a, &b, &c] {
        until_up(node, 2).await;
    }
    timeout(PATIENCE, c.leave()).await.unwrap();
    until_up(&a, 1).await;
    until_up(&b, 1).await;
}

#[tokio::test]
async fn gossip_reaches_the_peer() {
    let (a, mut in_a) = node(1, None);
    let (b, _in_b) = node(2, Some(a.address()));
    until_up(&b, 1).await;
    b.gossip(None, 7, b"hello".to_vec()).await;
    let gossip = async {
        loop {
            if let Some(MeshEvent::Gossip {
                name,
                channel,
                payload,
                ..
            }) = in_a.recv().await
            {
                return (name.to_string(), channel, payload);
            }
        }
    };
    let got = timeout(PATIENCE, gossip).await.unwrap();
    assert_eq!(got, ("node2".to_owned(), 7, b"hello".to_vec()));
}

/// I5, I6: garbage and a message of 4 GB end that connection, and nobody notices.
#[tokio::test]
async fn a_hostile_connection_is_ended_alone() {
    let (a, _in_a) = node(1, None);
    let (b, _in_b) = node(2, Some(a.address()));
    until_up(&a, 1).await;
    let huge = [&mesh::preamble()[..], &[0xff; 64]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &huge] {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // Hung up on, orderly or not.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("hung up on");
    }
    until_up(&a, 1).await;
    until_up(&b, 1).await;
}

/// A peer that never reads is cut off by the size of its queue.
#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_off() {
    let listener = tokio::net::TcpListener::bind(loopback()).await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let _other_end = listener.accept().await.unwrap();
    let (reports, _reported) = mpsc::channel(4);
    let (outgoing, _reader) = connection::split(ConnId::Dialled(0), stream, reports);
    let pushed = (0..64)
        .take_while(|_| outgoing.push(vec![0; mesh::MAX_MESSAGE]).is_ok())
        .count();
    assert!((4..64).contains(&pushed), "{pushed} MiB were queued");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let (a, _inbox) = node(1, None);
    let (events, _events) = mpsc::channel(1);
    let error = start(config(2, 1), a.address(), events).unwrap_err();
    let text = format!("{error:#}");
    assert!(
        text.contains(&a.address().to_string()) && text.contains("--control-port"),
        "{text}"
    );
}
