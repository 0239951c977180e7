//! Frames from a peer that are longer than the link's MTU.
//!
//! Linux's VXLAN device leaves cutting and checksums to the device below. Where that is a veth
//! nobody does either, and TCP super-frames of up to 64 KB arrive whole, their checksum partial.
//! They go to the TAP as what they are. What is not TCP comes from a peer with a larger MTU, and is
//! handed on as it is.

use wire::checksum;

use crate::counters::{Counters, DropReason, add};
use crate::cut::{Sums, SuperFrame};
use crate::dissect::{TCP, TCP_CHECKSUM, Transport, Verified, Version, put16};
use crate::ingress::{FrameSink, plain_header};
use crate::join::MAX_HEADERS;
use crate::vnet::{GsoType, VnetHdr};

/// Whether a frame can be a super-frame: a whole TCP segment.
pub(crate) fn may_be(frame: &[u8]) -> bool {
    Transport::parse(frame).is_some_and(|layout| layout.protocol == TCP)
}

/// Delivers a frame longer than an IP packet of `mtu` bytes makes: whole if the TAP takes
/// super-frames, cut otherwise, with `scratch` as the place to cut in.
pub(crate) fn deliver(
    frame: &[u8],
    mtu: u16,
    offloads: bool,
    scratch: &mut Vec<u8>,
    counters: &Counters,
    sink: &mut impl FrameSink,
) -> Result<(), DropReason> {
    let layout = Transport::parse(frame).filter(|layout| layout.protocol == TCP);
    let layout = layout.ok_or(DropReason::PeerTooBig)?;
    match layout.verify(frame) {
        Verified::Partial => add(&counters.partial_checksums, 1),
        Verified::Good => {}
        Verified::Bad | Verified::Absent => {
            add(&counters.bad_checksums, 1);
            return Err(DropReason::PeerTooBig);
        }
    }
    let mss = (usize::from(mtu) + wire::ethernet::HEADER_LEN).checked_sub(layout.payload);
    let mss = mss.filter(|mss| *mss > 0).ok_or(DropReason::PeerTooBig)?;
    let short = |len: usize| u16::try_from(len).map_err(|_| DropReason::PeerTooBig);
    let header = VnetHdr {
        needs_csum: true,
        gso: match layout.version {
            Version::V4 => GsoType::TcpV4,
            Version::V6 => GsoType::TcpV6,
        },
        ecn: false,
        hdr_len: short(layout.payload)?,
        gso_size: short(mss)?,
        csum_start: short(layout.at)?,
        csum_offset: short(TCP_CHECKSUM)?,
    };
    if offloads {
        let mut headers = [0; MAX_HEADERS];
        let headers = &mut headers[..layout.payload];
        headers.copy_from_slice(&frame[..layout.payload]);
        put16(
            headers,
            layout.checksum_at(),
            checksum::fold(layout.pseudo_sum(frame)),
        );
        sink.deliver(&[&header.bytes(), headers, &frame[layout.payload..layout.end]]);
        add(&counters.tap_tx_frames, 1);
        return Ok(());
    }
    let whole = SuperFrame::new(&header, &frame[..layout.end]).ok_or(DropReason::PeerTooBig)?;
    for i in 0..whole.count() {
        scratch.resize(whole.len(i), 0);
        whole.write(i, scratch, Sums::Complete);
        sink.deliver(&[&plain_header(), scratch]);
    }
    add(&counters.tap_tx_frames, whole.count() as u64);
    Ok(())
}
