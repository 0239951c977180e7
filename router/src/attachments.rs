//! What is known of each attachment beyond the addresses that `ipam` has given: the network it was
//! made for, the interface's Ethernet address, and addresses that another IPAM plugin gave.
//!
//! `ipam` keeps who holds which address, and that is what must never be lost. This is kept beside
//! it for garbage collection, which CNI confines to one network at a time. It is not synced to the
//! disk: an entry that a power failure takes is one that no collection judges, until its DEL.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use control::{AttachRequest, AttachmentRef, PodRef};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::Mac;

/// Name of the file in the state directory.
const FILE: &str = "attachments.json";

/// The attachments, kept in a file.
#[derive(Debug)]
pub struct Attachments {
    file: PathBuf,
    entries: BTreeMap<AttachmentRef, Entry>,
}

/// What is known of one attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<String>,
    /// The Kubernetes pod, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The interface's Ethernet address, if it is a veth on the bridge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// All addresses that the interface has, whoever gave them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// Whether another IPAM plugin gave them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
}

/// An entry as the file has it.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    of: AttachmentRef,
    #[serde(flatten)]
    entry: Entry,
}

impl Attachments {
    /// Reads what an earlier run wrote. A file that cannot be read is as good as none, and is
    /// said so in the log.
    pub fn load(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let lines: io::Result<Vec<Line>> =
            fs::read(&file).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let lines = lines.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "forgot the attachments' networks");
            }
            Vec::new()
        });
        Self {
            file,
            entries: lines
                .into_iter()
                .map(|line| (line.of, line.entry))
                .collect(),
        }
    }

    /// Notes an attachment with the addresses that it has.
    pub fn insert(&mut self, request: &AttachRequest, addresses: &[IpNet]) {
        let of = AttachmentRef {
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
        };
        let entry = Entry {
            network: request.network.clone(),
            netns: request.netns.clone(),
            pod: request.pod.clone(),
            mac: request.mac,
            addresses: addresses.to_vec(),
            foreign: !request.addresses.is_empty(),
        };
        if self.entries.get(&of) != Some(&entry) {
            self.entries.insert(of, entry);
            self.save();
        }
    }

    /// Forgets attachments.
    pub fn remove<'a>(&mut self, gone: impl IntoIterator<Item = &'a AttachmentRef>) {
        let before = self.entries.len();
        for of in gone {
            self.entries.remove(of);
        }
        if self.entries.len() != before {
            self.save();
        }
    }

    /// What is known of an attachment.
    pub fn get(&self, of: &AttachmentRef) -> Option<&Entry> {
        self.entries.get(of)
    }

    /// All attachments that are known.
    pub fn iter(&self) -> impl Iterator<Item = (&AttachmentRef, &Entry)> {
        self.entries.iter()
    }

    /// Whether an attachment was made for a network. Of one that is not known nobody can say, so
    /// the answer is no.
    pub fn is_of(&self, of: &AttachmentRef, network: &str) -> bool {
        self.entries
            .get(of)
            .is_some_and(|entry| entry.network.as_deref() == Some(network))
    }

    /// The interface's Ethernet address.
    pub fn mac(&self, of: &AttachmentRef) -> Option<Mac> {
        self.entries.get(of)?.mac
    }

    fn save(&self) {
        let lines: Vec<_> = self
            .entries
            .iter()
            .map(|(of, entry)| Line {
                of: of.clone(),
                entry: entry.clone(),
            })
            .collect();
        let new = self.file.with_extension("new");
        let saved = serde_json::to_vec(&lines)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &self.file));
        if let Err(error) = saved {
            tracing::warn!(file = %self.file.display(), %error, "cannot note the attachments");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(container_id: &str) -> AttachmentRef {
        AttachmentRef {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
        }
    }

    fn request(container_id: &str, network: Option<&str>) -> AttachRequest {
        AttachRequest {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
            network: network.map(str::to_owned),
            ..AttachRequest::default()
        }
    }

    #[test]
    fn kept_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut attachments = Attachments::load(dir.path());
        let mac = of("a").mac();
        let with_mac = AttachRequest {
            mac: Some(mac),
            ..request("a", Some("weft"))
        };
        attachments.insert(&with_mac, &[]);
        attachments.insert(&request("b", Some("other")), &[]);
        attachments.insert(&request("c", None), &[]);
        attachments.remove([&of("b"), &of("unknown")]);
        let attachments = Attachments::load(dir.path());
        assert!(attachments.is_of(&of("a"), "weft"));
        assert_eq!(attachments.mac(&of("a")), Some(mac));
        assert!(!attachments.is_of(&of("a"), "other"));
        assert!(!attachments.is_of(&of("b"), "other"));
        assert!(!attachments.is_of(&of("c"), "weft"));
    }

    /// What the node's rules are made of after a restart.
    #[test]
    fn i7_addresses_are_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let net: IpNet = "10.9.0.2/24".parse().unwrap();
        let request = AttachRequest {
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            addresses: vec![net],
            ..request("a", Some("weft"))
        };
        Attachments::load(dir.path()).insert(&request, &[net]);
        let attachments = Attachments::load(dir.path());
        let entry = attachments.get(&of("a")).unwrap();
        assert_eq!(entry.mac, Some(Mac([2, 0, 0, 0, 0, 9])));
        assert_eq!(
            (entry.addresses.as_slice(), entry.foreign),
            (&[net][..], true)
        );
        assert_eq!(attachments.iter().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "[{").unwrap();
        let mut attachments = Attachments::load(dir.path());
        attachments.insert(&request("a", Some("weft")), &[]);
        assert!(Attachments::load(dir.path()).is_of(&of("a"), "weft"));
    }
}
