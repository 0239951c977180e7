//! tinc 1.0 as a switch: its TAP is a port of the bridge.

use std::fs;

use router::lab::interrupt::Interrupt;

use super::super::Testbed;
use super::MTU;

impl Testbed {
    pub(super) fn tinc(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let directories: Vec<_> = (1..=2)
            .map(|number| self.directory.path().join(format!("tinc{number}")))
            .collect();
        for (index, directory) in directories.iter().enumerate() {
            fs::create_dir_all(directory.join("hosts"))?;
            let (own, other) = (index + 1, 2 - index);
            fs::write(
                directory.join("tinc.conf"),
                format!("Name = n{own}\nConnectTo = n{other}\nMode = switch\nInterface = tap0\n"),
            )?;
            let address = self.setup.address(self.sides[index].number);
            fs::write(
                directory.join("hosts").join(format!("n{own}")),
                format!("Address = {address}\n"),
            )?;
            // Appends the public key to the host's file.
            let config = format!("--config={}", directory.display());
            self.call(index, "tincd", &[config.as_str(), "--generate-keys=2048"])?;
        }
        for index in 0..2 {
            let host = format!("hosts/n{}", index + 1);
            fs::copy(
                directories[index].join(&host),
                directories[1 - index].join(&host),
            )?;
        }
        for (index, directory) in directories.iter().enumerate() {
            let arguments = [
                format!("--config={}", directory.display()),
                format!("--pidfile={}", directory.join("pid").display()),
                "--no-detach".to_owned(),
            ];
            self.daemon(index, "tincd", &arguments, &[])?;
        }
        for side in &self.sides {
            let tap = side.device("tap0", interrupt)?;
            side.bridge(tap.index, MTU)?;
        }
        Ok(())
    }
}
