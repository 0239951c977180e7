//! The kinds of traffic, and what is read off each.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;

use crate::cpu::CpuTime;
use crate::events::Events;
use crate::latency::Latency;
use crate::record::Metric;
use crate::testbed::Testbed;
use crate::traffic;

/// One kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Load {
    /// One TCP stream
    Tcp1,
    /// Four TCP streams
    Tcp4,
    /// Sixteen TCP streams
    Tcp16,
    /// 64-byte UDP packets of one flow
    Udp1,
    /// 64-byte UDP packets of 64 flows
    Udp64,
    /// 512-byte UDP packets of one flow
    Udp512x1,
    /// 512-byte UDP packets of 64 flows
    Udp512x64,
    /// 1372-byte UDP packets, of 1400 with their headers: the longest that every peer carries whole
    Udp1372x1,
    /// The same of 64 flows
    Udp1372x64,
    /// Round trips of one UDP packet
    RoundTrip,
    /// The same beside a TCP stream
    RoundTripLoaded,
}

enum Kind {
    Tcp { streams: usize },
    Udp { flows: usize, payload: usize },
    RoundTrips { loaded: bool },
}

impl Load {
    pub(crate) const ALL: &[Self] = &[
        Self::Tcp1,
        Self::Tcp4,
        Self::Tcp16,
        Self::Udp1,
        Self::Udp64,
        Self::Udp512x1,
        Self::Udp512x64,
        Self::Udp1372x1,
        Self::Udp1372x64,
        Self::RoundTrip,
        Self::RoundTripLoaded,
    ];

    /// Whether it belongs to a first look.
    pub(crate) const fn is_quick(self) -> bool {
        matches!(
            self,
            Self::Tcp1
                | Self::Tcp4
                | Self::Udp1
                | Self::Udp64
                | Self::RoundTrip
                | Self::RoundTripLoaded
        )
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream",
            Self::Tcp4 => "TCP, 4 streams",
            Self::Tcp16 => "TCP, 16 streams",
            Self::Udp1 => "UDP 64 B, 1 flow",
            Self::Udp64 => "UDP 64 B, 64 flows",
            Self::Udp512x1 => "UDP 512 B, 1 flow",
            Self::Udp512x64 => "UDP 512 B, 64 flows",
            Self::Udp1372x1 => "UDP 1372 B, 1 flow",
            Self::Udp1372x64 => "UDP 1372 B, 64 flows",
            Self::RoundTrip => "idle",
            Self::RoundTripLoaded => "beside a TCP stream",
        }
    }

    const fn kind(self) -> Kind {
        let (flows, payload) = match self {
            Self::Tcp1 => return Kind::Tcp { streams: 1 },
            Self::Tcp4 => return Kind::Tcp { streams: 4 },
            Self::Tcp16 => return Kind::Tcp { streams: 16 },
            Self::RoundTrip => return Kind::RoundTrips { loaded: false },
            Self::RoundTripLoaded => return Kind::RoundTrips { loaded: true },
            Self::Udp1 => (1, 64),
            Self::Udp64 => (64, 64),
            Self::Udp512x1 => (1, 512),
            Self::Udp512x64 => (64, 512),
            Self::Udp1372x1 => (1, 1372),
            Self::Udp1372x64 => (64, 1372),
        };
        Kind::Udp { flows, payload }
    }

    /// Runs it for so long, and returns the figures.
    pub(super) fn run(
        self,
        testbed: &Testbed,
        duration: Duration,
    ) -> anyhow::Result<Vec<(Metric, f64)>> {
        match self.kind() {
            Kind::Tcp { streams } => tcp(testbed, streams, duration),
            Kind::Udp { flows, payload } => {
                let arrived = traffic::udp(testbed.ends(), flows, payload, duration)?;
                let lost = arrived.sent.saturating_sub(arrived.packets) as f64;
                let rate = arrived.packets as f64 / arrived.elapsed.as_secs_f64();
                Ok(vec![
                    (Metric::PacketRate, rate / 1e3),
                    (Metric::Loss, lost / (arrived.sent.max(1) as f64) * 100.0),
                ])
            }
            Kind::RoundTrips { loaded: false } => {
                Ok(latency(traffic::round_trips(testbed.ends(), duration)?))
            }
            Kind::RoundTrips { loaded: true } => beside_a_stream(testbed, duration),
        }
    }
}

/// Throughput, what it cost, and how much had to be sent again.
pub(crate) fn tcp(
    testbed: &Testbed,
    streams: usize,
    duration: Duration,
) -> anyhow::Result<Vec<(Metric, f64)>> {
    let events = Events::of(testbed.namespaces())?;
    let busy = CpuTime::now()?;
    let arrived = traffic::tcp(testbed.ends(), streams, duration)?;
    let busy = CpuTime::now()?.since(busy).as_secs_f64();
    let events = Events::of(testbed.namespaces())?.since(events);
    let bits = arrived.bytes as f64 * 8.0 / arrived.elapsed.as_secs_f64();
    let mut figures = vec![(Metric::Throughput, bits / 1e9)];
    if arrived.bytes > 0 {
        let gigabytes = arrived.bytes as f64 / 1e9;
        let again = events.retransmissions as f64;
        figures.push((Metric::CpuPerGb, busy / gigabytes));
        figures.push((Metric::Retransmissions, again / gigabytes));
    }
    Ok(figures)
}

fn beside_a_stream(testbed: &Testbed, duration: Duration) -> anyhow::Result<Vec<(Metric, f64)>> {
    /// The stream begins before the first round trip and ends after the last.
    const MARGIN: Duration = Duration::from_millis(50);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let stream = traffic::tcp(testbed.ends(), 1, duration + 2 * MARGIN);
            done.store(true, Relaxed);
            stream
        });
        thread::sleep(MARGIN);
        let times = traffic::round_trips(testbed.ends(), duration);
        anyhow::ensure!(
            !done.load(Relaxed) || stream.is_finished(),
            "the stream ended before the round trips did"
        );
        stream
            .join()
            .map_err(|_| anyhow::anyhow!("the stream panicked"))??;
        Ok(latency(times?))
    })
}

fn latency(times: Vec<Duration>) -> Vec<(Metric, f64)> {
    Latency::of(times).map_or_else(Vec::new, |latency| {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        vec![
            (Metric::LatencyP50, micros(latency.p50_ns)),
            (Metric::LatencyP99, micros(latency.p99_ns)),
            (Metric::LatencyP999, micros(latency.p999_ns)),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_look_has_streams_packets_and_round_trips() {
        let quick: Vec<_> = Load::ALL.iter().filter(|load| load.is_quick()).collect();
        assert!(quick.len() < Load::ALL.len());
        let kinds: Vec<_> = quick.iter().map(|load| load.kind()).collect();
        assert!(kinds.iter().any(|kind| matches!(kind, Kind::Tcp { .. })));
        assert!(kinds.iter().any(|kind| matches!(kind, Kind::Udp { .. })));
        assert!(
            kinds
                .iter()
                .any(|kind| matches!(kind, Kind::RoundTrips { .. }))
        );
    }

    #[test]
    fn every_value_of_the_flag_is_measured() {
        assert_eq!(Load::value_variants(), Load::ALL);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let figures = latency(vec![Duration::from_micros(7); 3]);
        let wanted = [Metric::LatencyP50, Metric::LatencyP99, Metric::LatencyP999];
        assert_eq!(figures, wanted.map(|metric| (metric, 7.0)));
        assert!(latency(Vec::new()).is_empty());
    }
}
