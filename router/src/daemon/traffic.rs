//! What crossed the links since the last look, for the mesh, which probes where traffic is.

use std::collections::BTreeMap;

use fastpath::LinkTotals;
use mesh::Encapsulation;
use mesh::link::Activity;
use wire::PeerId;

use crate::io::datapath::{LinkKey, LinkTarget};

/// What was seen of each link.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    seen: BTreeMap<PeerId, LinkTotals>,
}

impl Traffic {
    /// Takes the totals so far; gives the links with traffic, and those that were refused a datagram
    /// as too long.
    pub(super) fn since(
        &mut self,
        totals: Vec<(LinkTarget, LinkTotals)>,
    ) -> (Vec<Activity>, Vec<(PeerId, Encapsulation)>) {
        let before = std::mem::take(&mut self.seen);
        let (mut activity, mut too_big) = (Vec::new(), Vec::new());
        for (target, now) in totals {
            let LinkKey::Peer(id) = target.key else {
                continue;
            };
            self.seen.insert(id, now);
            let then = before.get(&id).copied().unwrap_or_default();
            // A link that came anew counts from zero.
            let sent = now.tx_frames.saturating_sub(then.tx_frames);
            let received = now.rx_frames.saturating_sub(then.rx_frames);
            if sent > 0 || received > 0 {
                activity.push(Activity { id, sent, received });
            }
            if now.too_big > then.too_big {
                let encapsulation = match target.encapsulation {
                    fastpath::Encapsulation::Vxlan => Encapsulation::Vxlan,
                    fastpath::Encapsulation::Sleeve => Encapsulation::Sleeve,
                };
                too_big.push((id, encapsulation));
            }
        }
        (activity, too_big)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_with_news_are_told_of() {
        let id = PeerId([1; 8]);
        let link = |tx_frames, too_big| {
            let endpoint = ([192, 0, 2, 1], 6784).into();
            let totals = LinkTotals {
                tx_frames,
                too_big,
                ..LinkTotals::default()
            };
            vec![(LinkTarget::vxlan(LinkKey::Peer(id), endpoint, 1450), totals)]
        };
        let sent = |sent| Activity {
            id,
            sent,
            received: 0,
        };
        let mut traffic = Traffic::default();
        assert_eq!(traffic.since(link(5, 0)), (vec![sent(5)], vec![]));
        assert_eq!(traffic.since(link(5, 0)), (vec![], vec![]));
        let refused = vec![(id, Encapsulation::Vxlan)];
        assert_eq!(traffic.since(link(9, 2)), (vec![sent(4)], refused));
        assert_eq!(traffic.since(vec![]), (vec![], vec![]));
        assert_eq!(traffic.since(link(3, 0)), (vec![sent(3)], vec![]));
    }
}
