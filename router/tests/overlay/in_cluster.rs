//! Whole routers and the API server: they find each other, open the node for pods, and take over what
//! a deleted node had.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control::{AttachRequest, Client, PeerState, Status};
use tempfile::TempDir;

use crate::apiserver::ApiServer;
use crate::cluster::{PATIENCE, Stranger, WEFT, cluster};

/// Within which a deleted node's addresses are to be back.
const MINUTE: Duration = Duration::from_secs(60);

/// A router that takes its peers from the cluster.
struct Member {
    name: &'static str,
    process: Child,
    dir: TempDir,
    /// Goes after the process that runs in it.
    _machine: Stranger,
}

impl Member {
    fn start(name: &'static str, machine: Stranger, kubeconfig: &std::path::Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bin", "conf"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        let mut command = Command::new(WEFT);
        command
            .arg0("weft")
            .args(["run", "--config=/dev/null", "--kubernetes", "--name", name])
            .args(["--metrics-address=off", "--exit-with-stdin"])
            .arg("--socket")
            .arg(path("weft.sock"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--cni-bin-dir")
            .arg(path("bin"))
            .arg("--cni-conf-dir")
            .arg(path("conf"))
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap());
        let process = machine.netns.run(|| command.spawn()).unwrap().unwrap();
        Self {
            name,
            process,
            dir,
            _machine: machine,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.dir.path().join("weft.sock"), PATIENCE)
    }

    fn status(&self) -> Option<Status> {
        self.client().status().ok()
    }

    fn conflist(&self) -> PathBuf {
        self.dir.path().join("conf/10-weft.conflist")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Ended already, or ended by this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn routers_find_each_other_through_the_api_server_and_inherit() {
    let world = cluster(1, 1, &[]);
    let place = Stranger::join(&world, 110);
    let listener = place
        .netns
        .run(|| TcpListener::bind((place.address, 6443)))
        .unwrap()
        .unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let server = ApiServer::on(listener);
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u, namespace: kube-system}}}}]\n\
         users: [{{name: u, user: {{}}}}]\n",
        server.address
    );
    std::fs::write(&kubeconfig, text).unwrap();

    let machines = [("n1", 111), ("n2", 112)].map(|(name, host)| {
        let machine = Stranger::join(&world, host);
        server.set_node(name, &format!("uid-{name}"), &machine.address.to_string());
        (name, machine)
    });
    let mut members: Vec<_> = machines
        .into_iter()
        .map(|(name, machine)| Member::start(name, machine, &kubeconfig))
        .collect();
    let logs = |members: &[Member]| {
        let logs = members.iter().map(|m| format!("{}:\n{}", m.name, m.log()));
        logs.collect::<Vec<_>>().join("\n")
    };
    let until = |what: &str, members: &[Member], patience: Duration, answer: &dyn Fn() -> bool| {
        let end = Instant::now() + patience;
        while !answer() {
            assert!(
                Instant::now() < end,
                "not within {patience:?}: {what}\n{}",
                logs(members)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("both are up and linked", &members, MINUTE, &|| {
        members.iter().all(|member| {
            member.status().is_some_and(|status| {
                let linked = status.peers.iter().any(|peer| peer.state == PeerState::Up);
                status.ipam.ready && linked
            })
        })
    });
    until(
        "the nodes are written down and open",
        &members,
        MINUTE,
        &|| {
            let record = server.record();
            members.iter().all(|member| {
                let condition = &server.node(member.name)["status"]["conditions"][0]["status"];
                record.contains_key(&format!("node.{}", member.name))
                    && condition == "False"
                    && member.conflist().is_file()
            })
        },
    );

    // What the second one has handed out is lost with it.
    let request = AttachRequest {
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
        ..AttachRequest::default()
    };
    let attached = members[1].client().attach(&request).unwrap();
    assert_eq!(attached.addresses.len(), 1);
    let mut second = members.pop().unwrap();
    second.process.kill().unwrap();
    second.process.wait().unwrap();
    server.delete_node("n2");
    let gone = Instant::now();
    until("its addresses are back", &members, MINUTE, &|| {
        members[0].status().is_some_and(|status| {
            let peers = status.ipam.peers.iter();
            let mut second = peers.filter(|peer| peer.name.as_str() == "n2");
            second.all(|peer| peer.gone && peer.owned == 0)
        })
    });
    assert!(gone.elapsed() < MINUTE);
    until("the record forgets it", &members, MINUTE, &|| {
        !server.record().keys().any(|key| key.contains("n2"))
    });
    drop(second);
    drop(members);
    drop(place);
}
