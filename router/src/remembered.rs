//! Addresses of other nodes that an earlier run knew, so that a node that starts again finds the
//! network by itself, whether or not a target answers.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::durable;

/// Name of the file in the state directory.
const FILE: &str = "peers.json";

/// The addresses, kept in a file.
#[derive(Debug)]
pub struct Remembered {
    file: PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Remembered {
    /// Reads what an earlier run wrote. A file that cannot be read is as good as none.
    pub fn load(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let addresses: io::Result<Vec<SocketAddr>> =
            std::fs::read(&file).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let addresses = addresses.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "forgot where other nodes are");
            }
            Vec::new()
        });
        Self { file, addresses }
    }

    /// The addresses.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Keeps these from now on. A node that knows nobody at the moment keeps those it knew.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&mut self, addresses: Vec<SocketAddr>) -> io::Result<()> {
        if addresses.is_empty() || addresses == self.addresses {
            return Ok(());
        }
        durable::write(&self.file, &serde_json::to_vec(&addresses)?)?;
        self.addresses = addresses;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_until_others_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut remembered = Remembered::load(dir.path());
        assert!(remembered.addresses().is_empty());
        let known: Vec<SocketAddr> = vec![([10, 0, 0, 1], 6783).into()];
        remembered.keep(known.clone()).unwrap();
        remembered.keep(Vec::new()).unwrap();
        assert_eq!(Remembered::load(dir.path()).addresses(), known);
        std::fs::write(dir.path().join(FILE), "[").unwrap();
        assert!(Remembered::load(dir.path()).addresses().is_empty());
    }
}
