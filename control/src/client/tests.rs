use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::*;
use crate::ErrorCode;

/// Answers one connection with `answer` and returns what was asked.
fn serve_once(answer: impl Into<Vec<u8>>) -> (TempDir, Client, JoinHandle<String>) {
    let answer = answer.into();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weft.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = vec![0; 4096];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(&answer).unwrap();
        asked.truncate(length);
        String::from_utf8(asked).unwrap()
    });
    (dir, Client::new(socket, Duration::from_secs(5)), server)
}

#[test]
fn attach_sends_the_request_and_reads_the_attachment() {
    let first = r#"{"addresses":["10.32.0.7/12"],"gateways":["10.32.0.1"],"#;
    let second = r#""range":["10.32.0.0/12"],"mtu":1450,"bridge":"weft"}"#;
    let (_dir, client, server) = serve_once(format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len(),
    ));
    let request = AttachRequest {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns: Some("/run/netns/c1".into()),
        ..AttachRequest::default()
    };
    let attachment = client.attach(&request).unwrap();
    assert_eq!(attachment.mtu, 1450);
    assert_eq!(
        attachment.gateways,
        ["10.32.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    let asked = server.join().unwrap();
    assert!(asked.starts_with("POST /v1/attach HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.ends_with(r#"{"container_id":"c1","ifname":"eth0","netns":"/run/netns/c1"}"#),
        "{asked}"
    );
}

#[test]
fn a_refusal_keeps_code_and_remedy() {
    let body = r#"{"code":"not_found","message":"no attachment c1/eth0","remedy":"ADD it"}"#;
    let (_dir, client, server) = serve_once(format!(
        "HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let error = client
        .attachment(&AttachmentRef::new("c1", "eth0"))
        .unwrap_err();
    let ClientError::Api(refusal) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(refusal.code, ErrorCode::NotFound);
    assert_eq!(error.to_string(), "no attachment c1/eth0: ADD it");
    let asked = server.join().unwrap();
    assert!(
        asked.starts_with("GET /v1/attachment?container_id=c1&ifname=eth0 HTTP/1.1\r\n"),
        "{asked}"
    );
}

#[test]
fn no_router_is_said_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weft.sock");
    let error = Client::new(&socket, Duration::from_secs(1))
        .status()
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
    let text = error.to_string();
    assert!(text.contains(socket.to_str().unwrap()), "{text}");
    assert!(
        text.contains("is `weft run` running?") && text.contains("--socket"),
        "{text}"
    );

    let long = Client::new("/".repeat(200), Duration::from_secs(1))
        .status()
        .unwrap_err();
    assert!(matches!(long, ClientError::Connect { .. }), "{long}");
}

#[test]
fn a_router_that_hangs_ends_with_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weft.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let client = Client::new(&socket, Duration::from_millis(100));
    let error = client.status().unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));

    // A full backlog keeps connect itself waiting.
    let mut waiting = Vec::new();
    let full = loop {
        match client.connect() {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10_000, "the backlog never fills");
    };
    assert!(matches!(full, ClientError::Deadline { .. }), "{full}");
}

#[test]
fn the_deadline_holds_for_a_router_that_drips() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weft.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Each byte comes well before a timeout per read would strike.
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let started = Instant::now();
    let error = Client::new(&socket, Duration::from_millis(200))
        .status()
        .unwrap_err();
    assert!(matches!(error, ClientError::Deadline { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    server.join().unwrap();
}

#[test]
fn another_server_is_a_protocol_error() {
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nnope",
    ] {
        let (_dir, client, server) = serve_once(answer);
        let error = client.status().unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains("same version"), "{error}");
        server.join().unwrap();
    }
}
