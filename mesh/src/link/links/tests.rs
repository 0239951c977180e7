//! Small networks of nodes in virtual time.

mod addresses;
mod budget;
mod consent;
mod direct;
mod net;
mod relays;
mod schedules;
mod sizes;

use std::time::Duration;

use net::Net;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;
