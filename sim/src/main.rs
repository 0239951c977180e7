//! The simulation from the command line: `cargo run --release -p sim -- scale`.

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use sim::scale;

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
        /// A size, in nodes; can be repeated. Beyond 1,000 it takes an hour or more.
        #[arg(long, default_values_t = [10, 100, 1000])]
        nodes: Vec<usize>,
        /// Seed of all chance.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    let Verb::Scale { nodes, seed } = Arguments::parse().verb;
    println!("{}", scale::HEAD);
    for nodes in nodes {
        let start = Instant::now();
        let told = |text: &str| eprintln!("{:>6.1} s: {text}", start.elapsed().as_secs_f64());
        match scale::measure(nodes, seed, told) {
            Ok(row) => println!("{row}"),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
