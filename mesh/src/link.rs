//! The data links: what probes find out about every way to every peer, and which way frames take.
//!
//! **Role.** A state machine of its own, which [`Mesh`](crate::Mesh) embeds. It sends probes in the
//! real encapsulations, judges ways by the answers, and says where frames for each peer go.
//!
//! **Inputs.** What entries say of peers, probes that arrived, probes that could not be sent, what
//! traffic there was, and `now`. **Outputs.** Probes to send, changes of links, and what this node
//! tells others: whom it reaches, and how others see it.

mod budget;
mod candidates;
mod change;
mod config;
mod counters;
mod facts;
mod input;
mod links;
mod meter;
mod output;
mod peer;
mod pmtu;
mod seen;
mod view;
mod way;

pub use change::{Encapsulation, LinkChange, Path};
pub use config::{LinkConfig, LinkLimits, LinkTiming};
pub use counters::LinkCounters;
pub use facts::{Activity, Gone, PeerFacts};
pub use input::{Arrived, LinkInput, SendError};
pub use links::Links;
pub use output::{LinkOutput, ProbeToSend};
pub use view::{LinkState, LinkView, Quality, WayView};
