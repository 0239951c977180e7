//! Benchmarks: criterion, the two-node bench, reports.
