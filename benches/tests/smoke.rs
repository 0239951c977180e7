//! The executable itself, once and short: that it measures, agrees with the headers to the byte, makes
//! its page, and leaves nothing behind. No figure is judged.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn weft_bench(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_weft-bench"))
        .args(arguments)
        .output()
        .expect("cargo built it with this test");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// Namespaces that this test's runs have made and not removed.
fn left_behind() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with("weft-bench-"))
        // Another run's, as of a test that runs beside this one, are its own business.
        .filter(|name| {
            let pid = name.split('-').nth(2).unwrap_or_default();
            !Path::new("/proc").join(pid).exists()
        })
        .collect()
}

#[test]
fn bytes_on_the_underlay_are_those_of_the_headers() {
    let output = weft_bench(&["overhead", "--quick", "--bytes", "--json"]);
    let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = record["checks"].as_array().unwrap();
    assert!(checks.len() >= 16, "{checks:?}");
    for check in checks {
        assert_eq!(check["expected"], check["counted"], "{check}");
    }
    assert_eq!(left_behind(), [""; 0]);
}

#[test]
fn a_short_run_becomes_a_page_and_does_not_differ_from_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (record, page, plots) = (path("record.json"), path("page.html"), path("plots"));
    weft_bench(&[
        "pair",
        "--rounds=2",
        "--seconds=0.1",
        "--underlay=nooff",
        "--overlay=none,kernel,weft",
        "--load=tcp1,udp1,round-trip,round-trip-loaded",
        "--out",
        &record,
    ]);
    weft_bench(&["report", &record, "--html", &page, "--svg", &plots]);
    let html = fs::read_to_string(&page).unwrap();
    for text in [
        "kernel VXLAN",
        "TCP, 1 stream",
        "UDP 64 B, 1 flow",
        "</html>",
    ] {
        assert!(html.contains(text), "{text} is missing in the page");
    }
    assert_eq!(fs::read_dir(&plots).unwrap().count(), 4);
    let output = weft_bench(&["compare", &record, &record]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("0 better, 0 worse"), "{text}");
    assert_eq!(left_behind(), [""; 0]);
}
