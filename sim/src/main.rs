//! The simulation from the command line: `cargo run --release -p sim -- scale`.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use sim::scale::{self, Part};

/// Runs clusters in virtual time.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measures what clusters of several sizes cost, and how fast they are.
    Scale {
        /// A size, in nodes; can be repeated. A cluster of 1,000 takes ten minutes, one of 5,000 hours and 8 GB
        /// of memory.
        #[arg(long, default_values_t = [10, 100, 1000, 5000])]
        nodes: Vec<usize>,
        /// What to measure, in this order; can be repeated.
        #[arg(long, value_enum, default_values_t = [Part::Rest, Part::Join, Part::Churn, Part::Heal, Part::Loss])]
        part: Vec<Part>,
        /// Seed of all chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Verb::Scale { nodes, part, seed } = Arguments::parse().verb;
    println!("{}", scale::HEAD);
    for nodes in nodes {
        let start = Instant::now();
        let told = |text: &str| eprintln!("{:>6.1} s: {text}", start.elapsed().as_secs_f64());
        match scale::measure(nodes, seed, &part, told) {
            Ok(row) => println!("{row}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
