//! iperf3 as a second opinion.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::record::NotRun;
use crate::traffic::Ends;

const PROGRAM: &str = "iperf3";
pub(super) const LOAD: &str = "TCP, 1 stream, by iperf3";

/// Why it cannot be asked.
pub(super) fn missing() -> Option<NotRun> {
    let found = Command::new(PROGRAM).arg("--version").output().is_ok();
    (!found).then(|| NotRun {
        subject: "cross-check with iperf3".to_owned(),
        reason: "iperf3 is not installed: apt-get install iperf3".to_owned(),
    })
}

/// What one TCP stream carries, in Gb/s of payload received.
pub(super) fn tcp(ends: Ends<'_>, duration: Duration) -> anyhow::Result<f64> {
    let mut server = Command::new(PROGRAM);
    server
        .args(["--server", "--one-off", "--forceflush", "--bind"])
        .arg(ends.address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut server = ends.to.run(|| server.spawn())?.context("execute iperf3")?;
    let result = server
        .stdout
        .take()
        .context("iperf3 has no output")
        .and_then(|output| {
            let mut lines = BufReader::new(output).lines();
            lines
                .by_ref()
                .map_while(Result::ok)
                .find(|line| line.contains("listening"))
                .context("iperf3 does not listen")?;
            // It writes on, and would wait for a reader.
            let reader = std::thread::spawn(move || lines.map_while(Result::ok).count());
            let gigabits = client(ends, duration);
            Ok((reader, gigabits))
        });
    let outcome = result.map(|(reader, gigabits)| {
        if gigabits.is_err() {
            let _ = server.kill();
        }
        let _ = server.wait();
        let _ = reader.join();
        gigabits
    });
    outcome.unwrap_or_else(|error| {
        let _ = server.kill();
        let _ = server.wait();
        Err(error)
    })
}

fn client(ends: Ends<'_>, duration: Duration) -> anyhow::Result<f64> {
    // Whole seconds are all that it takes.
    let seconds = duration.as_secs().max(1);
    let mut client = Command::new(PROGRAM);
    client
        .args(["--json", "--connect-timeout", "3000"])
        .args(["--time", &seconds.to_string(), "--client"])
        .arg(ends.address.to_string())
        .stdin(Stdio::null());
    let output = ends.from.run(|| client.output())??;
    if !output.status.success() {
        bail!("iperf3 failed with {}", output.status);
    }
    received(&output.stdout)
}

fn received(json: &[u8]) -> anyhow::Result<f64> {
    let report: Value = serde_json::from_slice(json).context("iperf3 printed no JSON")?;
    report["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .map(|bits| bits / 1e9)
        .context("iperf3 says nothing of what was received")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_report_is_read() {
        let json = br#"{"end":{"sum_sent":{"bits_per_second":2e9},
                               "sum_received":{"bits_per_second":1.5e9}}}"#;
        assert!((received(json).unwrap() - 1.5).abs() < 1e-9);
        assert!(received(b"{}").is_err() && received(b"error").is_err());
    }
}
