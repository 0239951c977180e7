//! The CNI plugin `weft-cni`: makes a pod's interface, and takes it away again.
//!
//! A container runtime calls it once for each operation, with parameters in the environment and
//! the network's configuration on standard input ([CNI specification] 0.3.1, 0.4.0, 1.0.0 and
//! 1.1.0). The answer, a result or an error with a code, is JSON on standard output; one line for
//! people goes to standard error.
//!
//! The plugin keeps no state. The router gives the address; names are computed from the container
//! and the interface, so that whatever was made can be found again; the kernel is asked what is
//! there. No other program is executed, but for an IPAM plugin that the configuration names
//! (`ipam.type`). The other way round, `weft-cni` is the IPAM plugin of a plugin that names it.
//!
//! | code | meaning |
//! | --- | --- |
//! | 1 to 7, 11, 50, 51 | as the specification says |
//! | 100 | the kernel refused |
//! | 101 | `CHECK` found something that is not as `ADD` left it |
//! | 102 | the router refused, or its answer is not understood |
//! | 103 | the IPAM plugin that the configuration names failed |
//!
//! [CNI specification]: https://github.com/containernetworking/cni/blob/main/SPEC.md

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use control::{Client, DEFAULT_SOCKET};
use serde_json::{Value, json};

use crate::config::{Config, Document, Role};
use crate::delegate::Delegate;
use crate::env::{Env, Parameters, Verb};
use crate::error::{CniError, Code};
use crate::version::SpecVersion;

mod add;
mod check;
mod config;
mod del;
mod delegate;
mod env;
mod error;
mod gc;
mod ipam;
mod namespace;
mod result;
mod status;
mod version;
mod veth;

/// Runs the plugin with the process's own environment and standard streams.
pub fn process_main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).collect::<Vec<_>>();
    let status = main_entry(
        &arguments,
        &|name| std::env::var_os(name),
        &mut io::stdin().lock(),
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    );
    ExitCode::from(status)
}

/// Runs the plugin. Returns the exit status: 0, or 1 when an error was written instead of a
/// result.
///
/// `arguments` come without the program's name; a runtime gives none, `--version` and `--help`
/// are for people.
pub fn main_entry(
    arguments: &[OsString],
    env: &dyn Fn(&str) -> Option<OsString>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    if let Some(text) = for_people(arguments) {
        return u8::from(stdout.write_all(text.as_bytes()).is_err());
    }
    let started = Instant::now();
    let mut call = Call {
        subject: String::new(),
        version: SpecVersion::LATEST,
    };
    let outcome = call.run(&Env(env), stdin).and_then(|done| {
        write_json(stdout, &done.output).map_err(|error| {
            // Nobody knows of what was made, so it must not stay.
            let undone = done.undo.map(add::Undo::run).unwrap_or_default();
            CniError::new(Code::Io, "the result cannot be written", error.to_string()).and(&undone)
        })?;
        Ok(done.summary)
    });
    let subject = &call.subject;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let (status, line) = match outcome {
        Ok(summary) => (0, format!("weft-cni: {subject}: {summary} in {took:.1} ms")),
        Err(error) => {
            // If standard output is gone, the line below and the exit status still say it.
            let _ = write_json(stdout, &Some(error_result(call.version, &error)));
            let code = error.code as u32;
            (
                1,
                format!("weft-cni: {subject}: error {code} after {took:.1} ms: {error}"),
            )
        }
    };
    // The line is for people alone: nothing depends on anybody reading it.
    let _ = writeln!(stderr, "{}", one_line(&line));
    status
}

/// A text without line breaks and other control characters: what a runtime passes on from elsewhere
/// must not look like a call of its own in the log.
fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

/// What an operation ends with.
struct Done {
    /// For standard output.
    output: Option<Value>,
    /// For people.
    summary: String,
    /// Takes it back, if the runtime cannot be told.
    undo: Option<add::Undo>,
}

/// What is known of the call so far, for the messages about it.
struct Call {
    subject: String,
    version: SpecVersion,
}

impl Call {
    fn run(&mut self, env: &Env<'_>, stdin: &mut dyn Read) -> Result<Done, CniError> {
        self.subject = "call without CNI_COMMAND".to_owned();
        let verb = Verb::read(env)?;
        self.subject = verb.as_str().to_owned();
        let input = read_input(stdin)?;
        if verb == Verb::Version {
            return self.answer_version(&input);
        }
        let document = Document::parse(&input)?;
        self.version = document.version;
        check_version(verb, self.version)?;
        let config = Config::read(document)?;
        let socket = match &config.socket {
            Some(socket) => socket.clone(),
            None => env
                .optional("WEFT_SOCKET")?
                .unwrap_or(DEFAULT_SOCKET.into())
                .into(),
        };
        let router = |deadline| Client::new(PathBuf::clone(&socket), deadline);
        let delegate = match &config.role {
            Role::Delegating(name) => Some(Delegate::find(name, env, &input)?),
            Role::Network | Role::Ipam => None,
        };
        match verb {
            Verb::Gc => {
                let collected = gc::gc(&config, &router(RELEASE_DEADLINE));
                return and_delegate(delegate.as_ref(), verb, collected).map(done);
            }
            Verb::Status => {
                let status = status::status(&config, &router(STATUS_DEADLINE));
                return and_delegate(delegate.as_ref(), verb, status).map(done);
            }
            Verb::Add | Verb::Check | Verb::Del | Verb::Version => {}
        }
        let parameters = Parameters::read(env, verb)?;
        let pod = match &parameters.args.pod {
            Some(pod) => format!(" pod {}/{}", pod.namespace, pod.name),
            None => String::new(),
        };
        let attachment = &parameters.attachment;
        self.subject = format!(
            "{}{pod} container {} {}",
            verb.as_str(),
            attachment.container_id,
            attachment.ifname
        );
        let (parameters, config) = (&parameters, &config);
        match (verb, &config.role) {
            (Verb::Add, Role::Ipam) => {
                let release = router(RELEASE_DEADLINE);
                let (result, summary) =
                    ipam::add(parameters, config, &router(ATTACH_DEADLINE), &release)?;
                Ok(Done {
                    output: Some(result),
                    ..done(summary)
                })
            }
            (Verb::Check, Role::Ipam) => {
                ipam::check(parameters, config, &router(STATUS_DEADLINE)).map(done)
            }
            (_, Role::Ipam) => ipam::del(parameters, &router(RELEASE_DEADLINE)).map(done),
            (Verb::Add, _) => {
                let release = router(RELEASE_DEADLINE);
                let attach = router(ATTACH_DEADLINE);
                let added = add::add(parameters, config, delegate, &attach, release)?;
                Ok(Done {
                    output: Some(added.result),
                    summary: added.summary,
                    undo: Some(added.undo),
                })
            }
            (Verb::Check, _) => {
                let checked = check::check(parameters, config, &router(STATUS_DEADLINE));
                and_delegate(delegate.as_ref(), verb, checked).map(done)
            }
            _ => {
                let deleted = del::del(parameters, &router(RELEASE_DEADLINE));
                and_delegate(delegate.as_ref(), verb, deleted).map(done)
            }
        }
    }

    fn answer_version(&mut self, input: &[u8]) -> Result<Done, CniError> {
        // Runtimes that only want to know what is supported send nothing.
        let asked = if input.trim_ascii().is_empty() {
            b"{}"
        } else {
            input
        };
        let document: Value = serde_json::from_slice(asked).map_err(|error| {
            CniError::new(
                Code::Decode,
                "standard input cannot be decoded",
                error.to_string(),
            )
        })?;
        let version = match document.get("cniVersion") {
            None => SpecVersion::LATEST.as_str(),
            Some(Value::String(version)) => version,
            Some(other) => {
                let text = format!("cniVersion is {other}, not a string");
                return Err(CniError::new(
                    Code::Decode,
                    "standard input cannot be decoded",
                    text,
                ));
            }
        };
        let supported = SpecVersion::supported();
        let output = json!({"cniVersion": version, "supportedVersions": supported});
        Ok(Done {
            output: Some(output),
            ..done(supported.join(", "))
        })
    }
}

/// How long the router may take to find an address. It holds free space as a rule and answers in
/// well under a millisecond; only when it has to ask its peers for more does it take long. Kubelet
/// gives up on the whole sandbox after two minutes.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);

/// How long a release may take before it is noted for later: nothing waits for it.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// How long a look at the router may take. Some runtimes ask every five seconds.
const STATUS_DEADLINE: Duration = Duration::from_secs(3);

/// Longest standard input, in bytes. A `GC` of 10,000 attachments has about 1 MiB.
const MAX_INPUT: u64 = 8 << 20;

/// Lets the IPAM plugin below do its part, whatever came of ours: what it holds would be lost.
fn and_delegate(
    delegate: Option<&Delegate>,
    verb: Verb,
    ours: Result<String, CniError>,
) -> Result<String, CniError> {
    let Some(delegate) = delegate else {
        return ours;
    };
    match (ours, delegate.call(verb)) {
        (Ok(summary), Ok(_)) => Ok(summary),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Err(error), Err(more)) => Err(error.and(&[more.to_string()])),
    }
}

fn done(summary: String) -> Done {
    Done {
        output: None,
        summary,
        undo: None,
    }
}

fn read_input(stdin: &mut dyn Read) -> Result<Vec<u8>, CniError> {
    let bad = |why: String| CniError::new(Code::Io, "standard input cannot be read", why);
    let mut input = Vec::new();
    stdin
        .take(MAX_INPUT + 1)
        .read_to_end(&mut input)
        .map_err(|error| bad(error.to_string()))?;
    match input.len() as u64 > MAX_INPUT {
        true => Err(bad(format!("it is longer than {MAX_INPUT} bytes"))),
        false => Ok(input),
    }
}

/// Operations that an earlier version of the specification does not have.
fn check_version(verb: Verb, version: SpecVersion) -> Result<(), CniError> {
    let since = match verb {
        Verb::Add | Verb::Del | Verb::Version => SpecVersion::V0_3_1,
        Verb::Check => SpecVersion::V0_4_0,
        Verb::Gc | Verb::Status => SpecVersion::V1_1_0,
    };
    if version >= since {
        return Ok(());
    }
    let (verb, version, since) = (verb.as_str(), version.as_str(), since.as_str());
    Err(CniError::new(
        Code::IncompatibleVersion,
        format!("cniVersion {version:?} does not have {verb}"),
        format!("it came with {since}"),
    ))
}

fn error_result(version: SpecVersion, error: &CniError) -> Value {
    json!({
        "cniVersion": version.as_str(),
        "code": error.code as u32,
        "msg": error.msg,
        "details": error.details,
    })
}

fn write_json(out: &mut dyn Write, value: &Option<Value>) -> io::Result<()> {
    let Some(value) = value else { return Ok(()) };
    out.write_all(format!("{value}\n").as_bytes())?;
    out.flush()
}

fn for_people(arguments: &[OsString]) -> Option<String> {
    let name = concat!("weft-cni ", env!("CARGO_PKG_VERSION"));
    let versions = SpecVersion::supported().join(", ");
    match arguments.first()?.to_str() {
        Some("--version" | "-V") => Some(format!("{name} (CNI {versions})\n")),
        Some("--help" | "-h") => Some(format!(
            "{name}: the CNI plugin of weft, for container runtimes (CNI {versions}).\n\
             It is called with CNI_COMMAND and others in the environment and the network's\n\
             configuration on standard input; install it as /opt/cni/bin/weft-cni.\n"
        )),
        _ => None,
    }
}
