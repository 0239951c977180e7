//! A router that is a thread: speaks the control interface, hands out addresses, misbehaves on
//! request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use control::{ApiError, Attachment, AttachmentRef, ErrorCode, GcRequest, path};
use serde_json::{Value, json};

/// How the router answers.
#[derive(Clone, PartialEq)]
pub(crate) enum Mode {
    /// As it should.
    Well,
    /// Refuses everything.
    Refuse(ErrorCode),
    /// Does what is asked and hangs up without an answer.
    HangUp,
    /// Takes requests and is silent.
    Hang,
}

struct State {
    mode: Mode,
    held: BTreeMap<AttachmentRef, String>,
    next: u8,
    requests: Vec<(String, Value)>,
    /// Laid over the attachments that are answered.
    overlay: Value,
    ipam_ready: bool,
}

/// The handle of a router; it stops listening when dropped.
pub(crate) struct Router {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Router {
    pub(crate) fn start(socket: PathBuf) -> Self {
        let state = State {
            mode: Mode::Well,
            held: BTreeMap::new(),
            next: 7,
            requests: Vec::new(),
            overlay: json!({}),
            ipam_ready: true,
        };
        let router = Self {
            socket,
            state: Arc::new(Mutex::new(state)),
        };
        let listener = UnixListener::bind(&router.socket).unwrap();
        let state = Arc::clone(&router.state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(&stream.unwrap(), &state));
            }
        });
        router
    }

    /// No router any more: calls are refused by the kernel.
    pub(crate) fn stop(&self) {
        std::fs::remove_file(&self.socket).unwrap();
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn set_ipam_ready(&self, ready: bool) {
        self.state.lock().unwrap().ipam_ready = ready;
    }

    /// Changes a field of the attachments that are answered from now on.
    pub(crate) fn answer_with(&self, key: &str, value: Value) {
        self.state.lock().unwrap().overlay[key] = value;
    }

    /// Attachments that have an address.
    pub(crate) fn held(&self) -> Vec<AttachmentRef> {
        self.state.lock().unwrap().held.keys().cloned().collect()
    }

    pub(crate) fn forget(&self, attachment: &AttachmentRef) {
        self.state.lock().unwrap().held.remove(attachment);
    }

    /// Bodies of the requests to a path.
    pub(crate) fn requests(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let to_path = state.requests.iter().filter(|(target, _)| target == path);
        to_path.map(|(_, body)| body.clone()).collect()
    }
}

impl State {
    fn answer(&mut self, target: &str, body: &Value) -> Result<Value, ApiError> {
        if let Mode::Refuse(code) = self.mode {
            return Err(ApiError::new(
                code,
                "the test wants it so",
                "change the test",
            ));
        }
        let of =
            |value: &Value| -> AttachmentRef { serde_json::from_value(value.clone()).unwrap() };
        match target {
            path::ATTACH => {
                let asked = body["address"].as_str();
                let next = &mut self.next;
                let address = self.held.entry(of(body)).or_insert_with(|| {
                    *next += 1;
                    asked.map_or_else(|| format!("10.32.0.{}", *next - 1), str::to_owned)
                });
                let address = address.clone();
                Ok(self.attachment(&address))
            }
            path::DETACH => {
                let released = self
                    .held
                    .remove(&of(body))
                    .map(|address| format!("{address}/12"));
                Ok(json!({"released": Vec::from_iter(released)}))
            }
            path::GC => {
                let request: GcRequest = serde_json::from_value(body.clone()).unwrap();
                let mut released = Vec::new();
                self.held.retain(|attachment, address| {
                    let keep = request.keep.contains(attachment);
                    if !keep {
                        let mut entry = json!(attachment);
                        entry["addresses"] = json!([format!("{address}/12")]);
                        released.push(entry);
                    }
                    keep
                });
                Ok(json!({ "released": released }))
            }
            path::STATUS => Ok(self.status()),
            target => {
                let query = target.strip_prefix(path::ATTACHMENT).unwrap();
                let (id, ifname) = query.split_once('&').unwrap();
                let id = id.strip_prefix("?container_id=").unwrap();
                let ifname = ifname.strip_prefix("ifname=").unwrap();
                match self.held.get(&AttachmentRef::new(id, ifname)) {
                    Some(address) => Ok(self.attachment(&address.clone())),
                    None => Err(ApiError::not_found(
                        format!("no attachment {id}/{ifname}"),
                        "",
                    )),
                }
            }
        }
    }

    fn attachment(&self, address: &str) -> Value {
        let mut attachment = json!(Attachment {
            addresses: vec![format!("{address}/12").parse().unwrap()],
            gateways: vec![super::GATEWAY.parse().unwrap()],
            range: vec!["10.32.0.0/12".parse().unwrap()],
            mtu: 1450,
            bridge: super::BRIDGE.into(),
        });
        for (key, value) in self.overlay.as_object().unwrap() {
            attachment[key] = value.clone();
        }
        attachment
    }

    fn status(&self) -> Value {
        json!({
            "version": "0.1.0",
            "node": {
                "name": "n1", "id": "0000000000000001", "started_unix": 0,
                "socket": "/s", "state_dir": "/d",
            },
            "overlay": {
                "bridge": super::BRIDGE, "bridge_mac": "02:00:00:00:00:01", "tap": "weft-tap",
                "queues": 1, "mtu": 1450, "underlay_mtu": 1500, "vni": 1, "vxlan_port": 6784,
                "encrypted": false,
            },
            "ipam": {
                "range": "10.32.0.0/12", "ready": self.ipam_ready, "used": 0, "free": 0,
                "reason": (!self.ipam_ready).then_some("waiting for the seed peers a and b"),
            },
        })
    }
}

fn serve(stream: &UnixStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if target.is_empty() {
            target = line.split(' ').nth(1).unwrap().to_owned();
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();

    let (answer, mode) = {
        let mut state = state.lock().unwrap();
        state.requests.push((target.clone(), body.clone()));
        match state.mode {
            Mode::Hang => (Ok(Value::Null), Mode::Hang),
            _ => (state.answer(&target, &body), state.mode.clone()),
        }
    };
    let (status, text) = match &answer {
        Ok(value) => (200, value.to_string()),
        Err(error) => (error.code.http_status(), json!(error).to_string()),
    };
    match mode {
        Mode::Hang => thread::sleep(Duration::from_secs(30)),
        Mode::HangUp => {}
        Mode::Well | Mode::Refuse(_) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            // A caller that was killed does not read it.
            let _ = (&*stream).write_all((head + &text).as_bytes());
        }
    }
}
