//! Who may import whom. The table is the design's; a new edge fails here and is argued in
//! `docs/decisions.md` before it is added.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, and those of the workspace that it may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("fastpath", &["wire"]),
    ("ipam", &["wire"]),
    ("mesh", &["wire"]),
    ("hostnet", &["wire"]),
    ("control", &["wire"]),
    ("cni-shim", &["wire", "hostnet", "control"]),
    // `weft` carries the plugin, so that `weft lab` needs one binary.
    (
        "router",
        &[
            "wire", "fastpath", "ipam", "mesh", "hostnet", "control", "cni-shim",
        ],
    ),
    ("sim", &["wire", "ipam", "mesh", "fastpath", "router"]),
    (
        "weft-bench",
        &[
            "wire", "fastpath", "ipam", "mesh", "hostnet", "control", "cni-shim", "router",
        ],
    ),
];

/// Crates that take inputs and `now` and return outputs, and what would break that.
const PURE: &[&str] = &["wire", "fastpath", "ipam", "mesh"];
const WORLDLY: &[&str] = &[
    "tokio",
    "libc",
    "nix",
    "socket2",
    "netlink-sys",
    "redb",
    "axum",
    "rand",
    "tracing-subscriber",
];

#[test]
fn crates_import_only_what_the_design_allows() {
    let found = imports();
    let complaints = violations(&found);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(
        found.len(),
        MAY_IMPORT.len(),
        "a crate is missing from the table: {found:?}"
    );
}

#[test]
fn a_forbidden_edge_is_found() {
    let edge = |from: &str, to: &str| BTreeMap::from([(from.to_owned(), vec![to.to_owned()])]);
    assert_eq!(
        violations(&edge("mesh", "ipam")),
        ["mesh must not import ipam"]
    );
    assert_eq!(
        violations(&edge("fastpath", "tokio")),
        ["fastpath is pure and must not import tokio"]
    );
    assert_eq!(
        violations(&edge("hostnet", "router")),
        ["hostnet must not import router"]
    );
    assert_eq!(
        violations(&edge("stranger", "wire")),
        ["stranger is not in the table"]
    );
}

fn violations(imports: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, dependencies) in imports {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(known, _)| known == name) else {
            complaints.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in dependencies {
            let ours = MAY_IMPORT.iter().any(|(known, _)| known == dependency);
            if ours && !allowed.contains(&dependency.as_str()) {
                complaints.push(format!("{name} must not import {dependency}"));
            }
            if PURE.contains(&name.as_str()) && WORLDLY.contains(&dependency.as_str()) {
                complaints.push(format!("{name} is pure and must not import {dependency}"));
            }
        }
    }
    complaints
}

/// Normal and build dependencies of every member, by package name.
fn imports() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages is a list");
    let imports_of = |package: &Value| -> Vec<String> {
        let dependencies = package["dependencies"]
            .as_array()
            .expect("dependencies is a list");
        let normal = dependencies
            .iter()
            .filter(|dependency| dependency["kind"] != "dev");
        normal
            .filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
            .collect()
    };
    packages
        .iter()
        .map(|package| {
            (
                package["name"]
                    .as_str()
                    .expect("a package has a name")
                    .to_owned(),
                imports_of(package),
            )
        })
        .collect()
}
