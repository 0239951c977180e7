//! Real meshes over real TCP, on loopback and within this process.

use std::net::{IpAddr, Ipv4Addr};

use mesh::{ConditionChange, Hello, LinkChange, MAX_GOSSIP, PeerState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use wire::{PeerId, PeerName, Vni};

use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn hello(number: u8) -> Hello {
    Hello {
        id: PeerId([number; 8]),
        name: format!("n{number}").parse().unwrap(),
        public_key: [number; 32],
        run: u64::from(number),
        control_port: 6783,
        vxlan_port: 6784,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: "test".into(),
        sleeve_port: 0,
        seen: None,
    }
}

fn config(number: u8, targets: &[SocketAddr]) -> mesh::Config {
    let mut config = mesh::Config::new(hello(number), u64::from(number));
    config.targets = targets
        .iter()
        .map(|address| Target::from(*address))
        .collect();
    config
}

struct Running {
    handle: MeshHandle,
    events: mpsc::Receiver<MeshEvent>,
}

impl Running {
    fn start(number: u8, targets: &[SocketAddr]) -> Self {
        Self::on(ANY_PORT, number, targets)
    }

    fn on(listen: SocketAddr, number: u8, targets: &[SocketAddr]) -> Self {
        let (sender, events) = mpsc::channel(64);
        let handle = start(config(number, targets), listen, None, sender, None).unwrap();
        Self { handle, events }
    }

    fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    /// The next event that is wanted.
    async fn event(&mut self, mut wanted: impl FnMut(&MeshEvent) -> bool) -> MeshEvent {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the mesh runs");
                if wanted(&event) {
                    return event;
                }
            }
        };
        timeout(PATIENCE, next)
            .await
            .expect("an event that is wanted comes")
    }

    async fn gossip(&mut self) -> (PeerName, u8, Vec<u8>) {
        match self
            .event(|event| matches!(event, MeshEvent::Gossip { .. }))
            .await
        {
            MeshEvent::Gossip {
                name,
                channel,
                payload,
                ..
            } => (name, channel, payload),
            other => panic!("{other:?}"),
        }
    }

    /// Names of the peers to which the link is up and control is connected.
    async fn up(&self) -> Vec<String> {
        let peers = self.handle.peers().await;
        let up = peers
            .into_iter()
            .filter(|peer| peer.state == PeerState::Up && peer.connected);
        up.map(|peer| peer.name.to_string()).collect()
    }

    async fn until_up(&self, names: &[&str]) {
        let start = Instant::now();
        while self.up().await != names {
            assert!(
                start.elapsed() < PATIENCE,
                "{:?} instead of {names:?}",
                self.up().await
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A peer that shakes hands as it should and then does what the test wants.
async fn puppet(number: u8, to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let conn = ConnId::Accepted(0);
    let mut mesh = Mesh::new(config(number, &[]), Duration::ZERO);
    mesh.handle(Input::Accepted { conn, remote: to }, Duration::ZERO);
    let mut buffer = vec![0; 4096];
    loop {
        while let Some(output) = mesh.poll_output() {
            match output {
                Output::Send { bytes, .. } => stream.write_all(&bytes).await.unwrap(),
                Output::Close { reason, .. } => panic!("{reason}"),
                _ => {}
            }
        }
        if mesh.peers(Duration::ZERO).iter().any(|peer| peer.connected) {
            return stream;
        }
        let len = stream.read(&mut buffer).await.unwrap();
        let bytes = buffer[..len].to_vec();
        mesh.handle(Input::Received { conn, bytes }, Duration::ZERO);
    }
}

/// Reads until the other side closes.
async fn until_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A reset is an end too.
    let _ = end.expect("the connection is closed");
}

#[tokio::test]
async fn one_address_is_enough() {
    let a = Running::start(1, &[]);
    let b = Running::start(2, &[a.address()]);
    let c = Running::start(3, &[b.address()]);
    a.until_up(&["n2", "n3"]).await;
    b.until_up(&["n1", "n3"]).await;
    c.until_up(&["n1", "n2"]).await;
    let peers = a.handle.peers().await;
    let endpoints: Vec<_> = peers.iter().map(|peer| peer.endpoint).collect();
    assert_eq!(endpoints, [Some("127.0.0.1:6784".parse().unwrap()); 2]);
}

#[tokio::test]
async fn gossip_of_any_size_passes_both_ways() {
    let mut a = Running::start(1, &[]);
    let mut b = Running::start(2, &[a.address()]);
    a.until_up(&["n2"]).await;
    b.until_up(&["n1"]).await;
    let large: Vec<u8> = (0..MAX_GOSSIP).map(|i| i.to_le_bytes()[0]).collect();
    a.handle.gossip(None, 1, large.clone()).await.unwrap();
    b.handle
        .gossip(Some(PeerId([1; 8])), 2, b"small".to_vec())
        .await
        .unwrap();
    assert_eq!(
        a.gossip().await,
        ("n2".parse().unwrap(), 2, b"small".to_vec())
    );
    assert_eq!(b.gossip().await, ("n1".parse().unwrap(), 1, large));
}

#[tokio::test]
async fn a_leave_is_heard_at_once() {
    let a = Running::start(1, &[]);
    let mut b = Running::start(2, &[a.address()]);
    b.until_up(&["n1"]).await;
    timeout(PATIENCE, a.handle.leave()).await.unwrap();
    let link = b
        .event(|event| matches!(event, MeshEvent::Link(LinkChange::Left { .. })))
        .await;
    let left = LinkChange::Left {
        id: PeerId([1; 8]),
        name: "n1".parse().unwrap(),
    };
    assert_eq!(link, MeshEvent::Link(left));
    assert_eq!(a.handle.peers().await, []);
}

#[tokio::test]
async fn i5_a_restarted_router_is_found_again_and_no_link_moves() {
    let a = Running::start(1, &[]);
    let address = a.address();
    let mut b = Running::start(2, &[address]);
    b.until_up(&["n1"]).await;
    // All handles gone: the driver ends without a word.
    drop(a);
    b.event(|event| matches!(event, MeshEvent::Link(LinkChange::Up { .. })))
        .await;
    let start = Instant::now();
    while !b.up().await.is_empty() {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    let _again = Running::on(address, 1, &[]);
    b.until_up(&["n1"]).await;
    while let Ok(event) = b.events.try_recv() {
        assert!(!matches!(event, MeshEvent::Link(_)), "{event:?}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let a = Running::start(1, &[]);
    let (sender, _events) = mpsc::channel(1);
    let error = start(config(2, &[]), a.address(), None, sender, None).unwrap_err();
    let text = format!("{error:#}");
    for part in [&a.address().port().to_string(), "--control-port", "in use"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn i5_a_peer_that_does_not_read_is_cut_off_and_nobody_else_notices() {
    let a = Running::start(1, &[]);
    let mut b = Running::start(2, &[a.address()]);
    let deaf = puppet(9, a.address()).await;
    a.until_up(&["n2", "n9"]).await;
    b.until_up(&["n1"]).await;
    let start = Instant::now();
    for round in 0u32.. {
        assert!(start.elapsed() < PATIENCE, "the deaf peer is still there");
        let mut payload = round.to_be_bytes().to_vec();
        payload.resize(MAX_GOSSIP, 0);
        a.handle.gossip(None, 0, payload).await.unwrap();
        let (_, _, payload) = b.gossip().await;
        assert_eq!(payload[..4], round.to_be_bytes());
        if a.up().await == ["n2"] {
            break;
        }
    }
    let view = a.handle.view().await.unwrap();
    assert_eq!(view.cut_off, 1);
    assert!(
        view.cargo_dropped > 0,
        "what is carried for others waits for nobody"
    );
    let peer = view
        .peers
        .iter()
        .find(|peer| peer.name.as_str() == "n9")
        .unwrap();
    assert!(
        peer.reason.as_ref().unwrap().contains("did not read"),
        "{:?}",
        peer.reason
    );
    assert_eq!(peer.state, PeerState::Up, "its data link has its grace");
    until_closed(deaf).await;
}

#[tokio::test]
async fn i6_what_strangers_send_ends_their_connection_only() {
    let a = Running::start(1, &[]);
    let b = Running::start(2, &[a.address()]);
    b.until_up(&["n1"]).await;
    let mut four_gigabytes = mesh::preamble().to_vec();
    four_gigabytes.extend([0xff, 0xff, 0xff, 0xff, 9, 0, 0]);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 8],
        four_gigabytes,
    ] {
        let mut stream = TcpStream::connect(a.address()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        until_closed(stream).await;
    }
    // The same from a peer that has been taken on.
    let mut peer = puppet(9, a.address()).await;
    peer.write_all(&[0xff, 0xff, 0xff, 0xff, 9, 0, 0])
        .await
        .unwrap();
    until_closed(peer).await;
    assert_eq!(a.up().await, ["n2"]);
    assert_eq!(a.handle.view().await.unwrap().counters.malformed, 4);
}

#[tokio::test]
async fn i5_a_router_that_takes_no_events_does_not_stop_the_mesh() {
    let (sender, events) = mpsc::channel(1);
    let a = start(config(1, &[]), ANY_PORT, None, sender, None).unwrap();
    let mut others = Vec::new();
    for number in 2..8 {
        others.push(Running::start(number, &[a.address()]));
    }
    for (index, other) in others.iter().enumerate() {
        let all = (1..8)
            .filter(|number| *number != index + 2)
            .map(|number| format!("n{number}"));
        let all: Vec<String> = all.collect();
        other
            .until_up(&all.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        other.handle.gossip(None, 0, vec![1; 100]).await.unwrap();
    }
    assert_eq!(timeout(PATIENCE, a.peers()).await.unwrap().len(), 6);
    // What it takes then is the present state of each link.
    drop(others);
    let mut events = Running { handle: a, events };
    for _ in 0..6 {
        events
            .event(|event| matches!(event, MeshEvent::Link(LinkChange::Up { .. })))
            .await;
    }
}

#[tokio::test]
async fn a_leave_does_not_wait_for_a_peer_that_does_not_read() {
    let a = Running::start(1, &[]);
    let _deaf = puppet(9, a.address()).await;
    a.until_up(&["n9"]).await;
    for _ in 0..3 {
        a.handle.gossip(None, 0, vec![0; MAX_GOSSIP]).await.unwrap();
    }
    let start = Instant::now();
    a.handle.leave().await;
    assert!(
        start.elapsed() < FAREWELL + Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn why_a_target_is_not_reached_is_shown() {
    let unused = std::net::TcpListener::bind(ANY_PORT)
        .unwrap()
        .local_addr()
        .unwrap();
    let a = Running::start(1, &[unused]);
    a.handle
        .connect("does-not-exist.invalid".parse().unwrap())
        .await;
    let start = Instant::now();
    let reasons = loop {
        let view = a.handle.view().await.unwrap();
        let reasons: Vec<_> = view
            .targets
            .into_iter()
            .filter_map(|view| view.reason)
            .collect();
        if reasons.len() == 2 {
            break reasons.join("; ");
        }
        assert!(start.elapsed() < PATIENCE, "{reasons:?}");
        sleep(Duration::from_millis(10)).await;
    };
    for part in [
        &unused.to_string(),
        "refused",
        "does-not-exist.invalid",
        "resolved",
    ] {
        assert!(reasons.contains(part), "{part}: {reasons}");
    }
}

#[tokio::test]
async fn i_am_not_my_own_peer() {
    let a = Running::start(1, &[]);
    a.handle.connect(a.address().into()).await;
    let start = Instant::now();
    while a.handle.view().await.unwrap().counters.dialled_myself == 0 {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(a.handle.peers().await, []);
}

/// Keys of node `number`, with these passwords, and its introduction.
fn keys(number: u8, passwords: &[u8]) -> (ControlKeys, mesh::Config) {
    let params = "Noise_XX_25519_ChaChaPoly_BLAKE2s".parse().unwrap();
    let pair = snow::Builder::new(params).generate_keypair().unwrap();
    let public: [u8; 32] = pair.public.try_into().unwrap();
    let mut config = config(number, &[]);
    config.me.public_key = public;
    config.me.id = mesh::Fingerprint::of(&public).id();
    let secrets = mesh::Secrets {
        private: pair.private.try_into().unwrap(),
        public,
        passwords: passwords.iter().map(|n| Psk::new([*n; 32])).collect(),
    };
    let allowed = None;
    (ControlKeys { secrets, allowed }, config)
}

fn running(
    keys: Option<ControlKeys>,
    mut config: mesh::Config,
    target: Option<SocketAddr>,
) -> Running {
    config.targets.extend(target.map(Target::from));
    let (sender, events) = mpsc::channel(64);
    let handle = start(config, ANY_PORT, keys, sender, None).unwrap();
    Running { handle, events }
}

#[tokio::test]
async fn members_with_one_password_meet() {
    let (of_a, config_a) = keys(1, &[1, 2]);
    let (of_b, config_b) = keys(2, &[2]);
    let a = running(Some(of_a), config_a, None);
    let b = running(Some(of_b), config_b, Some(a.address()));
    a.until_up(&["n2"]).await;
    b.until_up(&["n1"]).await;
    // A password that is accepted no more takes its connections with it.
    a.handle.set_passwords(vec![Psk::new([9; 32])]).await;
    let start = Instant::now();
    while !a.up().await.is_empty() {
        assert!(start.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn another_password_or_none_is_refused_and_both_sides_say_so() {
    for of_b in [Some(2), None] {
        let (of_a, config_a) = keys(1, &[1]);
        let (keys_b, config_b) = keys(2, &[of_b.unwrap_or(0)]);
        let mut a = running(Some(of_a), config_a, None);
        let keys_b = of_b.map(|_| keys_b);
        let mut b = running(keys_b, config_b, Some(a.address()));
        for side in [&mut a, &mut b] {
            let told = |event: &MeshEvent| {
                matches!(event, MeshEvent::Condition(ConditionChange::Raised(condition))
                    if condition.kind == mesh::ConditionKind::OtherPassword
                        && condition.message.contains("give all nodes the same"))
            };
            side.event(told).await;
        }
        assert!(a.up().await.is_empty() && b.up().await.is_empty());
    }
}
