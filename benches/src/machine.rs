//! What the figures were taken on: they carry over to no other machine, so each record says which.

use std::fs;
use std::thread;

use serde::{Deserialize, Serialize};

/// A machine as far as it matters to how fast packets go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) cpu: String,
    /// Logical processors that this process may use.
    pub(crate) cores: usize,
    /// Whether it is a guest.
    pub(crate) virtual_machine: bool,
    /// Memory, in bytes.
    pub(crate) memory: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Frequency governor of the first processor; empty if the machine has none to choose.
    pub(crate) governor: String,
    /// Weaknesses of the processor and what the kernel does about them; those that it is not
    /// affected by are left out.
    pub(crate) mitigations: Vec<String>,
    /// Whether frames that cross a bridge pass through iptables, which taxes every overlay alike.
    pub(crate) bridge_netfilter: bool,
}

impl Machine {
    /// The one that this runs on. What cannot be found out is left empty.
    pub(crate) fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory: memory(&read("/proc/meminfo")).unwrap_or_default(),
            kernel: read("/proc/sys/kernel/osrelease"),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            mitigations: mitigations("/sys/devices/system/cpu/vulnerabilities"),
            bridge_netfilter: read("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1",
        }
    }

    /// In one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}{}, {} cores, {} GB, Linux {}",
            self.cpu,
            if self.virtual_machine {
                " (virtual machine)"
            } else {
                ""
            },
            self.cores,
            (self.memory + (1 << 29)) >> 30,
            self.kernel
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// The value of the first line `name : value`.
fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn memory(meminfo: &str) -> Option<u64> {
    let total = field(meminfo, "MemTotal")?;
    let kilobytes: u64 = total.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn mitigations(directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut lines: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let state = state.trim();
            let name = entry.file_name().into_string().ok()?;
            (state != "Not affected").then(|| format!("{name}: {state}"))
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor sse\n\
                       processor\t: 1\nmodel name\t: other\n";
        assert_eq!(field(cpuinfo, "model name").unwrap(), "AMD EPYC");
        assert_eq!(field(cpuinfo, "cache"), None);
        assert_eq!(
            memory("MemTotal:       24576 kB\nMemFree: 1 kB\n"),
            Some(24 << 20)
        );
        assert_eq!(memory("MemTotal: lots"), None);
    }

    #[test]
    fn only_what_the_machine_is_affected_by_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        for (name, state) in [
            ("spectre_v2", "Mitigation: Retpolines\n"),
            ("meltdown", "Not affected\n"),
            ("mds", "Vulnerable\n"),
        ] {
            fs::write(directory.path().join(name), state).unwrap();
        }
        let found = mitigations(directory.path().to_str().unwrap());
        assert_eq!(
            found,
            ["mds: Vulnerable", "spectre_v2: Mitigation: Retpolines"]
        );
        assert!(mitigations("/nowhere").is_empty());
    }

    #[test]
    fn the_summary_rounds_memory() {
        let machine = Machine {
            cpu: "CPU".to_owned(),
            cores: 2,
            virtual_machine: true,
            memory: (24 << 30) - (100 << 20),
            kernel: "6.18".to_owned(),
            ..Machine::default()
        };
        assert_eq!(
            machine.summary(),
            "CPU (virtual machine), 2 cores, 24 GB, Linux 6.18"
        );
    }
}
