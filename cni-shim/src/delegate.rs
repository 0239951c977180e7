//! Another IPAM plugin under this one (CNI 1.1.0 §4, "Plugin Delegation"): executed with our own
//! environment and standard input, and held to a deadline.

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::{Dns, Route};
use crate::env::{Env, Verb};
use crate::error::{CniError, Code};

/// A plugin that was found, and what it is called with.
#[derive(Debug, Clone)]
pub(crate) struct Delegate {
    name: String,
    program: PathBuf,
    env: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

/// What it gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Gift {
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

/// How long the other plugin may take. `dhcp` asks over the network; kubelet gives up on the
/// whole sandbox after two minutes.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between looks whether it has ended: it takes milliseconds.
const PAUSE: Duration = Duration::from_millis(1);
/// Longest answer, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// What a runtime sets (CNI 1.1.0 §2), but for the verb.
const HANDED_ON: [&str; 5] = [
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
];

impl Delegate {
    /// Finds the plugin in the directories of `CNI_PATH`. `input` is what we got ourselves.
    pub(crate) fn find(name: &str, env: &Env<'_>, input: &[u8]) -> Result<Self, CniError> {
        let path = (env.0)("CNI_PATH").unwrap_or_default();
        let program = env::split_paths(&path)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|program| program.is_file());
        let program = program.ok_or_else(|| {
            CniError::new(
                Code::InvalidConfig,
                format!("ipam.type={name:?} is not installed"),
                format!("there is no such plugin in CNI_PATH={path:?}"),
            )
        })?;
        let handed_on = |name: &'static str| Some((name, (env.0)(name)?));
        Ok(Self {
            name: name.to_owned(),
            program,
            env: HANDED_ON.into_iter().filter_map(handed_on).collect(),
            input: input.to_vec(),
        })
    }

    /// Asks for addresses.
    pub(crate) fn add(&self) -> Result<Gift, CniError> {
        let answer = self.call(Verb::Add)?;
        Gift::parse(&answer).map_err(|why| self.failed("its result cannot be used", &why))
    }

    /// Any verb that answers nothing.
    pub(crate) fn call(&self, verb: Verb) -> Result<Vec<u8>, CniError> {
        let until = Instant::now() + DEADLINE;
        let mut child = Command::new(&self.program)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("CNI_COMMAND", verb.as_str())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.failed("it cannot be executed", &show(&self.program, &error)))?;
        let (mut stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (ended, output) = thread::scope(|scope| {
            // A plugin that does not read, or does not end its output, is killed; both pipes then
            // end by themselves.
            scope.spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(&self.input)));
            let reader = scope.spawn(move || {
                let mut output = Vec::new();
                let read = stdout.map(|pipe| pipe.take(MAX_OUTPUT).read_to_end(&mut output));
                read.transpose().map(|_| output)
            });
            let ended = wait(&mut child, until);
            (ended, reader.join())
        });
        let status = ended.map_err(|error| self.failed("it cannot be waited for", &error))?;
        let Some(status) = status else {
            let msg = format!("{} did not end within {DEADLINE:?}", self.name);
            return Err(CniError::new(Code::TryAgainLater, msg, "it was killed"));
        };
        let output = match output {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(self.failed("its answer cannot be read", &error)),
            Err(_) => return Err(self.failed("its answer cannot be read", &"the reader failed")),
        };
        match status.success() {
            true => Ok(output),
            false => Err(self.refusal(&output, status)),
        }
    }

    /// Its own words. A code of the specification keeps its meaning.
    fn refusal(&self, output: &[u8], status: std::process::ExitStatus) -> CniError {
        #[derive(Deserialize)]
        struct Refusal {
            code: u64,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }
        match serde_json::from_slice::<Refusal>(output) {
            Ok(Refusal { code, msg, details }) => CniError::new(
                Code::of_specification(code).unwrap_or(Code::Delegate),
                format!("{} refuses ({code}): {msg}", self.name),
                details,
            ),
            Err(_) => self.failed("it failed without a reason", &status),
        }
    }

    fn failed(&self, what: &str, why: &dyn ToString) -> CniError {
        CniError::new(
            Code::Delegate,
            format!("the IPAM plugin {}: {what}", self.name),
            why.to_string(),
        )
    }
}

impl Gift {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            ips: Vec<Ip>,
            routes: Option<Vec<Route>>,
            dns: Option<Dns>,
        }
        #[derive(Deserialize)]
        struct Ip {
            address: IpNet,
            gateway: Option<IpAddr>,
        }
        let answer: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let answer = Answer::deserialize(answer).map_err(|error| error.to_string())?;
        let most = control::AttachRequest::MAX_FOREIGN_ADDRESSES;
        if !(1..=most).contains(&answer.ips.len()) {
            let count = answer.ips.len();
            return Err(format!("it has {count} addresses, not 1 to {most}"));
        }
        Ok(Self {
            gateways: answer.ips.iter().filter_map(|ip| ip.gateway).collect(),
            addresses: answer.ips.into_iter().map(|ip| ip.address).collect(),
            routes: answer.routes.unwrap_or_default(),
            dns: answer.dns.unwrap_or_default(),
        })
    }
}

/// Waits for the end of a process until then, and kills it if it does not come. `None` if it was
/// killed.
fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(PAUSE);
    }
}

fn show(program: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gift_is_read_as_far_as_it_is_needed() {
        let gift = Gift::parse(
            br#"{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.9.0.2/24","gateway":"10.9.0.1"},
                {"address":"fd00::2/64"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}"#,
        )
        .unwrap();
        assert_eq!(gift.addresses.len(), 2);
        assert_eq!(gift.gateways, ["10.9.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(gift.routes.len(), 1);
        for bad in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"ips":[]}"#,
            br#"{"ips":[{"address":"10.9.0.2"}]}"#,
        ] {
            assert!(Gift::parse(bad).is_err());
        }
        let ip = r#"{"address":"10.9.0.2/24"}"#;
        let many = format!(r#"{{"ips":[{}]}}"#, [ip; 17].join(","));
        assert!(Gift::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn a_plugin_is_looked_for_in_absolute_directories_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("giver"), "").unwrap();
        let find = |path: OsString| {
            let env = move |name: &str| (name == "CNI_PATH").then(|| path.clone());
            Delegate::find("giver", &Env(&env), b"{}")
        };
        let both = env::join_paths([Path::new("/nowhere"), dir.path()]).unwrap();
        assert_eq!(find(both).unwrap().program, dir.path().join("giver"));
        let error = find("bin:/nowhere".into()).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.details.contains("/nowhere"), "{error}");
    }
}
