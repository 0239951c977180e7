//! Why a node ends a connection, as it tells the other side.

use std::fmt;
use std::net::SocketAddr;

/// Longest reason that is sent or kept, in bytes: one line on a terminal and some more.
const MAX_TEXT: usize = 300;
/// Most addresses that a node names instead of itself.
pub(crate) const MAX_INSTEAD: usize = 8;

/// The kind of reason, as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalCode {
    /// No version of the protocol that both know.
    Version,
    /// Another VXLAN network: its frames would not be ours.
    Network,
    /// A connection of a node to itself.
    Myself,
    /// Another node has this identity.
    Identity,
    /// Another node has this name.
    Name,
    /// A table is full.
    Busy,
    /// A message that cannot be read, or not at this point.
    Malformed,
    /// A newer connection with the same peer is in use.
    Replaced,
    /// Nothing was heard for too long, or the handshake took too long.
    Silent,
    /// The node leaves the network.
    Leaving,
    /// The other side has no password, and this node has one.
    Plain,
    /// The other side has another password.
    Password,
    /// The other side's key is not among those that are allowed.
    NotAllowed,
    /// Neither side needs the connection any more.
    Spare,
    /// A code of a later version.
    Other(u32),
}

impl RefusalCode {
    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::Version => 1,
            Self::Network => 2,
            Self::Myself => 3,
            Self::Identity => 4,
            Self::Name => 5,
            Self::Busy => 6,
            Self::Malformed => 7,
            Self::Replaced => 8,
            Self::Silent => 9,
            Self::Leaving => 10,
            Self::Plain => 20,
            Self::Password => 21,
            Self::NotAllowed => 22,
            Self::Spare => 11,
            Self::Other(number) => number,
        }
    }

    /// The code of a number on the wire.
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Version,
            2 => Self::Network,
            3 => Self::Myself,
            4 => Self::Identity,
            5 => Self::Name,
            6 => Self::Busy,
            7 => Self::Malformed,
            8 => Self::Replaced,
            9 => Self::Silent,
            10 => Self::Leaving,
            20 => Self::Plain,
            21 => Self::Password,
            22 => Self::NotAllowed,
            11 => Self::Spare,
            other => Self::Other(other),
        }
    }

    /// Whether only an operator can change the answer, so that asking again soon is pointless.
    pub const fn is_lasting(self) -> bool {
        matches!(
            self,
            Self::Version
                | Self::Network
                | Self::Identity
                | Self::Plain
                | Self::Password
                | Self::NotAllowed
        )
    }
}

/// Why a connection ends: a code for the program, a text for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub code: RefusalCode,
    /// The reason in words; printable, at most 300 bytes.
    pub text: String,
    /// Others to try instead, at most 8.
    pub instead: Vec<SocketAddr>,
}

impl Refusal {
    /// A refusal with its text cut and freed of control characters: it may come from a peer, and
    /// goes to logs and terminals.
    pub fn new(code: RefusalCode, text: &str) -> Self {
        Self {
            code,
            text: printable(text, MAX_TEXT),
            instead: Vec::new(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// At most `max` bytes of `text`, without control characters.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > max {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for number in 0..40 {
            assert_eq!(RefusalCode::from_number(number).number(), number);
        }
    }

    #[test]
    fn text_is_cut_and_cleaned() {
        let refusal = Refusal::new(RefusalCode::Busy, &format!("\x1b[31mä{}", "ä".repeat(300)));
        assert!(refusal.text.starts_with("[31mä") && refusal.text.len() <= MAX_TEXT);
    }
}
