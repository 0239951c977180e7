//! The socket: transactions and dumps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::message::{Attributes, HEADERS, Kind, Messages};
use super::rule::{COUNTER, DATA_VALUE, LIST_ELEM};
use super::{Chain, ChainKind, Elements, Family, HookPoint, Observed, Set, Step, Table};
use crate::netlink::{Answer, NLMSG_DONE, NLMSG_ERROR, attributes, retry, text};
use crate::netns::{NetNs, NetNsError};
use crate::sockaddr::field;

/// A socket to nftables, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    sequence: u32,
    answer: Vec<u8>,
}

/// Why nftables did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// No socket.
    #[error("open a netlink socket for nftables")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace could not be entered to open the socket there.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel refused.
    #[error("{operation}: {}{}", errno.desc(), Remedy(*errno))]
    Refused {
        /// What was asked for.
        operation: &'static str,
        /// The kernel's error.
        errno: Errno,
    },
    /// Sending or receiving failed.
    #[error("{operation}: netlink socket failed")]
    Io {
        /// What was asked for.
        operation: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The answer is not what nfnetlink says.
    #[error("{operation}: the kernel's answer cannot be read")]
    Malformed {
        /// What was asked for.
        operation: &'static str,
    },
}

impl NftError {
    /// Whether something that was named is not there.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                errno: Errno::ENOENT,
                ..
            }
        )
    }
}

/// What a counter has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

const TIMEOUT: i64 = 10;
/// Above the 32 KiB that the kernel fills at most in a dump's part.
const ANSWER_LEN: usize = 64 * 1024;
/// Elements in one message: an attribute has at most 64 KiB.
const ELEMENTS: usize = 500;
/// Room for a transaction: 1,000 pods have about 150 KiB of elements.
const SEND_BUFFER: usize = 4 << 20;
/// What dumps ask again for when a change interrupted them.
const DUMP_ATTEMPTS: usize = 5;

impl Nft {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel gives none.
    pub fn open() -> Result<Self, NftError> {
        let open = || {
            let socket = Socket::new(NETLINK_NETFILTER)?;
            socket.connect(&SocketAddr::new(0, 0))?;
            let _ = socket.set_cap_ack(true);
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(TIMEOUT))?;
            // Without the privilege the default does for some thousand elements.
            let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER);
            Ok(socket)
        };
        let socket = open().map_err(|source| NftError::Open { source })?;
        Ok(Self {
            socket,
            sequence: 1,
            answer: vec![0; ANSWER_LEN],
        })
    }

    /// Opens a socket in another namespace, and leaves the calling thread where it is.
    ///
    /// # Errors
    /// As [`Nft::open`], or the namespace cannot be entered.
    pub fn open_in(ns: &NetNs) -> Result<Self, NftError> {
        ns.run(Self::open)?
    }

    /// Carries out all steps in one transaction, or none of them.
    ///
    /// # Errors
    /// The kernel refuses a step: it lacks what a rule needs, or an element is not there (any more).
    pub fn apply(&mut self, steps: &[Step]) -> Result<(), NftError> {
        const OPERATION: &str = "change nftables";
        if steps.is_empty() {
            return Ok(());
        }
        let mut messages = Messages::starting_at(self.sequence);
        messages.begin_batch();
        for step in steps {
            encode(step, &mut messages);
        }
        let first = self.sequence;
        let last = messages.end_batch(NLM_F_ACK);
        self.sequence = messages.sequence().wrapping_add(1);
        self.send(OPERATION, &messages.bytes)?;
        let ours = first..=last;
        self.receive(OPERATION, |answer| {
            // Left over from a request that timed out.
            if !ours.contains(&answer.sequence) {
                return Ok(false);
            }
            match answer.error() {
                Some(0) => Ok(answer.sequence == last),
                Some(code) => Err(NftError::Refused {
                    operation: OPERATION,
                    errno: Errno::from_raw(-code),
                }),
                None => Ok(false),
            }
        })
    }

    /// Looks at a table. `None` if it is not there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn observe(&mut self, family: Family, table: &str) -> Result<Option<Observed>, NftError> {
        let chains = self.dump(
            "list chains",
            Kind::GetChain,
            family,
            |_| (),
            |answer| {
                let all: BTreeMap<u16, &[u8]> = answer.attributes(NFGENMSG).collect();
                if all.get(&1).map(|name| text(name)).as_deref() != Some(table) {
                    return None;
                }
                let name = text(all.get(&3)?);
                Some((name, all.get(&4).and_then(|hook| read_hook(hook))))
            },
        )?;
        if chains.is_empty() {
            return Ok(None);
        }
        let in_table = |message: &mut Attributes<'_>| message.text(1, table);
        let rules = self.dump("list rules", Kind::GetRule, family, in_table, |answer| {
            let all: BTreeMap<u16, &[u8]> = answer.attributes(NFGENMSG).collect();
            // The kernel filters since Linux 4.10.
            if all.get(&1).map(|name| text(name)).as_deref() != Some(table) {
                return None;
            }
            let chain = text(all.get(&2)?);
            let digest = all.get(&7).and_then(|data| field(data, 0));
            Some((chain, digest.map_or(0, u64::from_be_bytes)))
        })?;
        let names = self.dump("list sets", Kind::GetSet, family, in_table, |answer| {
            let all: BTreeMap<u16, &[u8]> = answer.attributes(NFGENMSG).collect();
            let ours = all.get(&1).map(|name| text(name)).as_deref() == Some(table);
            ours.then(|| all.get(&2).map(|name| text(name))).flatten()
        })?;
        let mut observed = Observed {
            chains: chains.into_iter().collect(),
            ..Observed::default()
        };
        for (chain, digest) in rules {
            observed.rules.entry(chain).or_default().push(digest);
        }
        for name in names {
            let elements = self.elements(family, table, &name)?;
            observed.sets.insert(name, elements);
        }
        Ok(Some(observed))
    }

    fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<BTreeSet<Vec<u8>>, NftError> {
        let of_set = |message: &mut Attributes<'_>| {
            message.text(1, table);
            message.text(2, set);
        };
        let parts = self.dump(
            "list elements",
            Kind::GetSetElem,
            family,
            of_set,
            |answer| {
                let list = answer.attributes(NFGENMSG).find(|(kind, _)| *kind == 3)?.1;
                let keys = attributes(list).filter_map(|(_, element)| {
                    let key = attributes(element).find(|(kind, _)| *kind == 1)?.1;
                    let value = attributes(key).find(|(kind, _)| *kind == DATA_VALUE)?.1;
                    Some(value.to_vec())
                });
                Some(keys.collect::<Vec<_>>())
            },
        )?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The counters of a table by name; empty if it is not there.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn counters(
        &mut self,
        family: Family,
        table: &str,
    ) -> Result<BTreeMap<String, Counted>, NftError> {
        let of_table = |message: &mut Attributes<'_>| {
            message.text(1, table);
            message.be32(3, COUNTER);
        };
        let found = self.dump("read counters", Kind::GetObj, family, of_table, |answer| {
            let all: BTreeMap<u16, &[u8]> = answer.attributes(NFGENMSG).collect();
            if all.get(&1).map(|name| text(name)).as_deref() != Some(table) {
                return None;
            }
            let name = text(all.get(&2)?);
            let values: BTreeMap<u16, &[u8]> = attributes(all.get(&4)?).collect();
            let value = |kind| values.get(&kind).and_then(|value| field(value, 0));
            Some((
                name,
                Counted {
                    bytes: value(1).map_or(0, u64::from_be_bytes),
                    packets: value(2).map_or(0, u64::from_be_bytes),
                },
            ))
        });
        match found {
            Ok(found) => Ok(found.into_iter().collect()),
            Err(error) if error.is_missing() => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// Base chains of any table that drop at the forward hook of IP what no rule accepts, as
    /// "family table chain".
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn forward_drops(&mut self) -> Result<Vec<String>, NftError> {
        const FORWARD: u32 = 2;
        const DROP: u32 = 0;
        let mut found = Vec::new();
        for (number, name) in [(1, "inet"), (2, "ip"), (10, "ip6")] {
            found.extend(self.dump_of(
                "list chains",
                Kind::GetChain,
                number,
                |_| (),
                |answer| {
                    let all: BTreeMap<u16, &[u8]> = answer.attributes(NFGENMSG).collect();
                    let hook: BTreeMap<u16, &[u8]> = attributes(all.get(&4)?).collect();
                    let hook = u32::from_be_bytes(field(hook.get(&1)?, 0)?);
                    let policy = u32::from_be_bytes(field(all.get(&5)?, 0)?);
                    let chain = (text(all.get(&1)?), text(all.get(&3)?));
                    (hook == FORWARD && policy == DROP)
                        .then(|| format!("{name} {} {}", chain.0, chain.1))
                },
            )?);
        }
        Ok(found)
    }

    /// All objects of a kind for which `take` has a value. Nothing, if what is asked about is not
    /// there.
    fn dump<T>(
        &mut self,
        operation: &'static str,
        kind: Kind,
        family: Family,
        about: impl Fn(&mut Attributes<'_>),
        take: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        self.dump_of(operation, kind, number(family), about, take)
    }

    fn dump_of<T>(
        &mut self,
        operation: &'static str,
        kind: Kind,
        family: u8,
        about: impl Fn(&mut Attributes<'_>),
        take: impl Fn(&Answer<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NftError> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let mut messages = Messages::starting_at(self.sequence);
            messages.add(kind, NLM_F_DUMP, family, &about);
            let sequence = messages.sequence();
            self.sequence = sequence.wrapping_add(1);
            self.send(operation, &messages.bytes)?;
            let mut consistent = true;
            let mut missing = false;
            self.receive(operation, |answer| {
                if answer.sequence != sequence {
                    return Ok(false);
                }
                consistent &= !answer.is_interrupted();
                match answer.error() {
                    Some(0) => return Ok(true),
                    Some(code) if Errno::from_raw(-code) == Errno::ENOENT => {
                        missing = true;
                        return Ok(true);
                    }
                    Some(code) => {
                        return Err(NftError::Refused {
                            operation,
                            errno: Errno::from_raw(-code),
                        });
                    }
                    None => found.extend(take(answer)),
                }
                Ok(false)
            })?;
            if missing {
                return Ok(Vec::new());
            }
            if consistent {
                break;
            }
        }
        Ok(found)
    }

    fn send(&mut self, operation: &'static str, bytes: &[u8]) -> Result<(), NftError> {
        let sent = retry(|| self.socket.send(bytes, 0));
        sent.map(drop)
            .map_err(|source| NftError::Io { operation, source })
    }

    /// Hands on what comes until `each` says that it was the last, or fails.
    fn receive(
        &mut self,
        operation: &'static str,
        mut each: impl FnMut(&Answer<'_>) -> Result<bool, NftError>,
    ) -> Result<(), NftError> {
        loop {
            let len = retry(|| self.socket.recv(&mut &mut self.answer[..], libc::MSG_TRUNC))
                .map_err(|source| NftError::Io { operation, source })?;
            let malformed = || NftError::Malformed { operation };
            let mut rest = self.answer.get(..len).ok_or_else(malformed)?;
            while !rest.is_empty() {
                let answer = Answer::first(rest).ok_or_else(malformed)?;
                rest = rest
                    .get(answer.len.next_multiple_of(4)..)
                    .unwrap_or_default();
                if each(&answer)? {
                    return Ok(());
                }
            }
        }
    }
}

impl Answer<'_> {
    /// The code of an acknowledgement, an error or the end of a dump: zero, or a negative error
    /// number. `None` for any other message.
    fn error(&self) -> Option<i32> {
        match self.kind {
            NLMSG_ERROR | NLMSG_DONE => Some(self.code().unwrap_or(0)),
            _ => None,
        }
    }
}

/// `struct nfgenmsg`.
const NFGENMSG: usize = HEADERS - 16;

fn encode(step: &Step, messages: &mut Messages) {
    match step {
        Step::Replace(table) => {
            // To delete what may not be there, it is made first.
            for kind in [Kind::NewTable, Kind::DelTable, Kind::NewTable] {
                let flags = if kind == Kind::NewTable {
                    NLM_F_CREATE
                } else {
                    0
                };
                messages.add(kind, flags, number(table.family), |a| {
                    a.text(1, &table.name)
                });
            }
            encode_table(table, messages);
        }
        Step::AddElements(elements) => encode_elements(Kind::NewSetElem, elements, messages),
        Step::DelElements(elements) => encode_elements(Kind::DelSetElem, elements, messages),
        Step::Delete(family, name) => {
            for kind in [Kind::NewTable, Kind::DelTable] {
                let flags = if kind == Kind::NewTable {
                    NLM_F_CREATE
                } else {
                    0
                };
                messages.add(kind, flags, number(*family), |a| a.text(1, name));
            }
        }
    }
}

fn encode_table(table: &Table, messages: &mut Messages) {
    let family = number(table.family);
    for counter in &table.counters {
        messages.add(Kind::NewObj, NLM_F_CREATE, family, |a| {
            a.text(1, &table.name);
            a.text(2, counter);
            a.be32(3, COUNTER);
            a.nest(4, |zero| {
                zero.be64(1, 0);
                zero.be64(2, 0);
            });
        });
    }
    for (id, set) in (1..).zip(&table.sets) {
        messages.add(Kind::NewSet, NLM_F_CREATE, family, |a| {
            encode_set(a, table, set, id)
        });
        let elements = Elements {
            family: table.family,
            table: table.name.clone(),
            set: set.name.clone(),
            keys: set.elements.clone(),
        };
        encode_elements(Kind::NewSetElem, &elements, messages);
    }
    for chain in &table.chains {
        messages.add(Kind::NewChain, NLM_F_CREATE, family, |a| {
            encode_chain(a, table, chain)
        });
    }
    for chain in &table.chains {
        for rule in &chain.rules {
            // NLM_F_APPEND, or they would stand in reverse.
            messages.add(Kind::NewRule, NLM_F_CREATE | 0x800, family, |a| {
                a.text(1, &table.name);
                a.text(2, &chain.name);
                a.nest(4, |list| rule.encode(list));
                a.bytes(7, &rule.digest().to_be_bytes());
            });
        }
    }
}

fn encode_set(a: &mut Attributes<'_>, table: &Table, set: &Set, id: u32) {
    // What `nft` shows a key as: six bits for each part (its `TYPE_BITS`).
    let shown = set
        .key
        .iter()
        .fold(0, |shown, part| (shown << 6) | part.shown_as());
    a.text(1, &table.name);
    a.text(2, &set.name);
    a.be32(3, 0);
    a.be32(4, shown);
    a.be32(5, set.key.iter().map(|part| part.size()).sum());
    a.be32(10, id);
}

fn encode_chain(a: &mut Attributes<'_>, table: &Table, chain: &Chain) {
    a.text(1, &table.name);
    a.text(3, &chain.name);
    if let Some(hook) = chain.hook {
        a.nest(4, |h| {
            h.be32(1, hook_number(hook.at));
            h.bytes(2, &hook.priority.to_be_bytes());
        });
        // NF_ACCEPT.
        a.be32(5, 1);
        a.text(
            7,
            match hook.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    }
}

fn encode_elements(kind: Kind, elements: &Elements, messages: &mut Messages) {
    let keys: Vec<_> = elements.keys.iter().collect();
    let flags = if kind == Kind::NewSetElem {
        NLM_F_CREATE
    } else {
        0
    };
    for some in keys.chunks(ELEMENTS) {
        messages.add(kind, flags, number(elements.family), |a| {
            a.text(1, &elements.table);
            a.text(2, &elements.set);
            a.nest(3, |list| {
                for key in some {
                    list.nest(LIST_ELEM, |element| {
                        element.nest(1, |data| data.bytes(DATA_VALUE, key));
                    });
                }
            });
        });
    }
}

fn read_hook(hook: &[u8]) -> Option<(HookPoint, i32)> {
    let all: BTreeMap<u16, &[u8]> = attributes(hook).collect();
    let at = match u32::from_be_bytes(field(all.get(&1)?, 0)?) {
        0 => HookPoint::PreRouting,
        3 => HookPoint::Output,
        4 => HookPoint::PostRouting,
        _ => return None,
    };
    Some((at, i32::from_be_bytes(field(all.get(&2)?, 0)?)))
}

const fn hook_number(at: HookPoint) -> u32 {
    match at {
        HookPoint::PreRouting => 0,
        HookPoint::Output => 3,
        HookPoint::PostRouting => 4,
    }
}

/// `NFPROTO_*`.
const fn number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Bridge => 7,
    }
}

/// What to do about an error, where the error alone says it.
struct Remedy(Errno);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::EPERM => f.write_str(": this needs CAP_NET_ADMIN in the namespace"),
            Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => f.write_str(
                ": the kernel lacks nf_tables, or the module that a rule needs \
                 (nf_tables, nft_masq, nft_ct)",
            ),
            _ => Ok(()),
        }
    }
}
