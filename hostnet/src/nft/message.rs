//! Messages of nfnetlink as bytes (linux/netlink.h, linux/netfilter/nfnetlink.h). Headers are in host
//! order, integers in attributes in network order.

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `struct nlmsghdr` and `struct nfgenmsg`.
pub(super) const HEADERS: usize = 20;
/// Where the flags stand in `struct nlmsghdr`.
const FLAGS_AT: usize = 6;

/// What a message asks for (`enum nf_tables_msg_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    NewTable = 0,
    DelTable = 2,
    NewChain = 3,
    GetChain = 4,
    NewRule = 6,
    GetRule = 7,
    NewSet = 9,
    GetSet = 10,
    NewSetElem = 12,
    GetSetElem = 13,
    DelSetElem = 14,
    NewObj = 18,
    GetObj = 19,
}

impl Kind {
    /// The type in the message's header.
    pub(super) const fn on_wire(self) -> u16 {
        (SUBSYSTEM << 8) | self as u16
    }
}

/// Messages that are built one after another.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) bytes: Vec<u8>,
    /// Where the last message that is not an end begins.
    last: usize,
    sequence: u32,
}

impl Messages {
    /// Begins with this sequence number.
    pub(super) fn starting_at(sequence: u32) -> Self {
        Self {
            sequence,
            ..Self::default()
        }
    }

    /// Sequence number of the message that was added last.
    pub(super) const fn sequence(&self) -> u32 {
        self.sequence.wrapping_sub(1)
    }

    pub(super) fn begin_batch(&mut self) {
        self.header(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| ());
    }

    /// Ends the batch and asks for an acknowledgement of the message before it, whose sequence number
    /// is returned.
    pub(super) fn end_batch(&mut self, ack: u16) -> u32 {
        let acknowledged = self.sequence();
        let at = self.last + FLAGS_AT;
        let flags = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]) | ack;
        self.bytes[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
        self.header(BATCH_END, 0, 0, SUBSYSTEM, |_| ());
        acknowledged
    }

    /// Adds a message about a family.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        flags: u16,
        family: u8,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.last = self.bytes.len();
        self.header(kind.on_wire(), flags, family, 0, attributes);
    }

    fn header(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        let start = self.bytes.len();
        // NLM_F_REQUEST on all.
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | 1).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        attributes(&mut Attributes(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// The attributes of a message or of a nest.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute(kind, |attributes| attributes.0.extend(value));
    }

    /// A text with the zero that ends it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, |attributes| {
            attributes.0.extend(value.as_bytes());
            attributes.0.push(0);
        });
    }

    pub(super) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Attributes<'_>)) {
        self.attribute(kind | NESTED, inside);
    }

    fn attribute(&mut self, kind: u16, inside: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        inside(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Builds attributes alone, to be looked at.
pub(super) fn attributes(build: impl FnOnce(&mut Attributes<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    build(&mut Attributes(&mut bytes));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_length() {
        let bytes = attributes(|a| {
            a.text(1, "ab");
            a.nest(4, |a| a.be32(2, 7));
        });
        let n = u16::to_ne_bytes;
        let expected = [
            &n(7)[..],
            &n(1),
            b"ab\0\0",
            &n(12),
            &n(4 | NESTED),
            &n(8),
            &n(2),
            &[0, 0, 0, 7],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_batch_is_framed_and_its_last_message_acknowledged() {
        let mut messages = Messages::starting_at(9);
        messages.begin_batch();
        messages.add(Kind::NewTable, 0x400, 7, |a| a.text(1, "t"));
        assert_eq!(messages.end_batch(4), 10);
        let kinds: Vec<_> = [0, 20, 48]
            .map(|at: usize| u16::from_ne_bytes([messages.bytes[at + 4], messages.bytes[at + 5]]))
            .to_vec();
        assert_eq!(kinds, [0x10, 0x0a00, 0x11]);
        assert_eq!(messages.bytes[20 + 6..20 + 8], (0x405u16).to_ne_bytes());
        assert_eq!(messages.bytes[48 + 18..48 + 20], [0, 10]);
    }
}
