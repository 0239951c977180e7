//! What `deploy/` says, against the types of the Kubernetes API, the settings and the requests that
//! the router makes; and the image that its script builds.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// The objects of a manifest.
fn objects(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(deploy().join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// As its type. A field that the type does not have is a misspelling.
fn read<T: DeserializeOwned>(object: &Value) -> T {
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(object, |path| unknown.push(path.to_string()));
    let read = read.unwrap_or_else(|error| panic!("{error} in {object}"));
    assert!(unknown.is_empty(), "unknown fields {unknown:?} in {object}");
    read
}

fn one(kind: &str) -> Value {
    let mut found = objects("weft.yaml")
        .into_iter()
        .filter(|object| object["kind"] == kind);
    let object = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "more than one {kind}");
    object
}

fn pod(object: &Value) -> PodSpec {
    read::<DaemonSet>(object)
        .spec
        .unwrap()
        .template
        .spec
        .unwrap()
}

#[test]
fn every_object_is_what_the_api_takes() {
    let mut kinds = BTreeSet::new();
    for file in ["weft.yaml", "uninstall.yaml"] {
        for object in objects(file) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            match kind.as_str() {
                "ServiceAccount" => drop(read::<ServiceAccount>(&object)),
                "ClusterRole" => drop(read::<ClusterRole>(&object)),
                "ClusterRoleBinding" => drop(read::<ClusterRoleBinding>(&object)),
                "Role" => drop(read::<Role>(&object)),
                "RoleBinding" => drop(read::<RoleBinding>(&object)),
                "ConfigMap" => drop(read::<ConfigMap>(&object)),
                "DaemonSet" => drop(read::<DaemonSet>(&object)),
                kind => panic!("{kind} is not checked"),
            }
            kinds.insert(kind);
        }
    }
    assert_eq!(kinds.len(), 7);
    let listed = objects("kustomization.yaml");
    assert_eq!(listed[0]["resources"], serde_json::json!(["weft.yaml"]));
}

#[test]
#[should_panic(expected = "unknown fields")]
fn a_misspelt_field_is_found() {
    let mut object = one("DaemonSet");
    object["spec"]["template"]["spec"]["hostNetwrok"] = Value::Bool(true);
    read::<DaemonSet>(&object);
}

/// Each verb is one that `io::kube` uses.
#[test]
fn no_more_is_allowed_than_is_used() {
    let rules = |rules: Option<Vec<PolicyRule>>| -> BTreeSet<String> {
        let each = |rule: PolicyRule| {
            let names = rule.resource_names.unwrap_or_default().join(",");
            let resources = rule.resources.unwrap_or_default().join(",");
            rule.verbs
                .into_iter()
                .map(move |verb| format!("{verb} {resources} {names}").trim().to_owned())
        };
        rules.unwrap().into_iter().flat_map(each).collect()
    };
    assert_eq!(
        rules(read::<ClusterRole>(&one("ClusterRole")).rules),
        BTreeSet::from(
            [
                "get nodes",
                "list nodes",
                "watch nodes",
                "patch nodes/status"
            ]
            .map(str::to_owned)
        )
    );
    assert_eq!(
        rules(read::<Role>(&one("Role")).rules),
        BTreeSet::from(
            [
                "create configmaps",
                "get configmaps weft",
                "patch configmaps weft"
            ]
            .map(str::to_owned)
        )
    );
    assert_eq!(router::io::kube::RECORD, "weft");
}

#[test]
fn the_pod_has_least_privilege_and_goes_last() {
    let pod = pod(&one("DaemonSet"));
    assert_eq!(pod.host_network, Some(true));
    assert_eq!((pod.host_pid, pod.host_ipc), (None, None));
    assert_eq!(
        pod.priority_class_name.as_deref(),
        Some("system-node-critical")
    );
    for container in &pod.containers {
        let security = container.security_context.clone().unwrap();
        assert_eq!(security.privileged, None);
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let capabilities = security.capabilities.unwrap();
        assert_eq!(capabilities.drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(capabilities.add, Some(vec!["NET_ADMIN".to_owned()]));
        let resources = container.resources.clone().unwrap();
        assert!(resources.requests.is_some() && resources.limits.is_none());
    }
}

/// Whatever is set is a setting, and all of it together makes a router start.
#[test]
fn the_settings_are_the_routers() {
    let pod = pod(&one("DaemonSet"));
    let container = &pod.containers[0];
    let mut env: BTreeMap<String, String> = read::<ConfigMap>(&one("ConfigMap")).data.unwrap();
    for variable in container.env.clone().unwrap() {
        env.insert(
            variable.name,
            variable.value.unwrap_or_else(|| "node-1".to_owned()),
        );
    }
    // The password is read apart from the settings.
    env.remove("WEFT_PASSWORD");
    let keys: Vec<_> = router::settings::Options::keys();
    for name in env.keys() {
        let key = name.strip_prefix("WEFT_").unwrap().to_lowercase();
        assert!(keys.contains(&key), "{name} is no setting");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["run", "--check"])
        .env_clear()
        .envs(&env)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");

    // The probes ask where the router listens, and the volumes are where it looks.
    let settings = String::from_utf8(output.stdout).unwrap();
    let port = |probe: &k8s_openapi::api::core::v1::Probe| probe.http_get.clone().unwrap().port;
    for probe in [&container.liveness_probe, &container.readiness_probe] {
        let port = serde_json::to_string(&port(probe.as_ref().unwrap())).unwrap();
        assert!(settings.contains(&format!("metrics_address = \"0.0.0.0:{port}\"")));
    }
    let mounts = container.volume_mounts.clone().unwrap();
    let mounts: BTreeSet<_> = mounts.into_iter().map(|mount| mount.mount_path).collect();
    for (key, path) in [
        ("state_dir", "/var/lib/weft"),
        ("socket", "/run/weft/weft.sock"),
        ("cni_bin_dir", "/opt/cni/bin"),
        ("cni_conf_dir", "/etc/cni/net.d"),
    ] {
        assert!(
            settings.contains(&format!("{key} = \"{path}\"")),
            "{settings}"
        );
        assert!(
            mounts.iter().any(|mount| path.starts_with(mount.as_str())),
            "{path} is not mounted"
        );
    }
}

/// Two binaries and nothing else, the same each time.
#[test]
fn the_image_is_reproducible_and_has_two_files() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["weft", "weft-cni"] {
        std::fs::write(dir.path().join(name), format!("#!{name}\n")).unwrap();
    }
    let build = |out: &str| {
        let out = dir.path().join(out);
        let output = Command::new(deploy().join("image"))
            .arg("-b")
            .arg(dir.path())
            .arg("-o")
            .arg(&out)
            .args(["-t", "weft:test"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::read(out).unwrap()
    };
    assert_eq!(build("one.tar"), build("two.tar"));

    let tar = |args: &[&str]| {
        let output = Command::new("tar")
            .args(args)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let manifest: Value =
        serde_json::from_slice(&tar(&["-xOf", "one.tar", "./manifest.json"])).unwrap();
    let manifest = &manifest[0];
    assert_eq!(manifest["RepoTags"][0], "docker.io/library/weft:test");
    let config = format!("./{}", manifest["Config"].as_str().unwrap());
    let config: Value = serde_json::from_slice(&tar(&["-xOf", "one.tar", &config])).unwrap();
    let layer = manifest["Layers"][0].as_str().unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"][0],
        format!("sha256:{}", layer.strip_suffix(".tar").unwrap())
    );
    tar(&["-xf", "one.tar", &format!("./{layer}")]);
    let listing = String::from_utf8(tar(&["-tf", layer])).unwrap();
    let files: Vec<_> = listing
        .lines()
        .filter(|line| !line.ends_with('/'))
        .collect();
    assert_eq!(files, ["usr/local/bin/weft", "usr/local/bin/weft-cni"]);
    // The image that the manifest names is the one that the script makes.
    let version = env!("CARGO_PKG_VERSION");
    let pod = pod(&one("DaemonSet"));
    assert_eq!(pod.containers[0].image, Some(format!("weft:{version}")));
}
