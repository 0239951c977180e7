//! What an address belongs to: one interface of one container.

use std::fmt;

/// A container's interface, as CNI names it: `CNI_CONTAINERID` and `CNI_IFNAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationKey {
    container_id: String,
    ifname: String,
}

impl AllocationKey {
    /// Longest container id. Runtimes use 64 hexadecimal digits; twice that and more is not one.
    pub const MAX_CONTAINER_ID: usize = 255;
    /// Longest interface name: `IFNAMSIZ` less the terminating zero (`linux/if.h`).
    pub const MAX_IFNAME: usize = 15;

    /// Checks both parts: printable ASCII without spaces, not empty, not too long.
    pub fn new(
        container_id: impl Into<String>,
        ifname: impl Into<String>,
    ) -> Result<Self, KeyError> {
        Ok(Self {
            container_id: checked("container id", container_id.into(), Self::MAX_CONTAINER_ID)?,
            ifname: checked("interface name", ifname.into(), Self::MAX_IFNAME)?,
        })
    }

    /// The container.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// Its interface.
    pub fn ifname(&self) -> &str {
        &self.ifname
    }
}

impl fmt::Display for AllocationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "container {} interface {}",
            self.container_id, self.ifname
        )
    }
}

/// A text that cannot be a part of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} is not valid: use 1 to {max} printable ASCII characters without spaces")]
pub struct KeyError {
    /// Which part.
    pub field: &'static str,
    /// What was given, shortened.
    pub value: String,
    /// How long it may be, in bytes.
    pub max: usize,
}

fn checked(field: &'static str, value: String, max: usize) -> Result<String, KeyError> {
    let good = (1..=max).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    if good {
        Ok(value)
    } else {
        Err(KeyError {
            field,
            value: value.chars().take(80).collect(),
            max,
        })
    }
}
