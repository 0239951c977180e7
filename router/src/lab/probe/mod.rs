//! What is tried in a world, each with sockets of its own and no other program: a socket belongs
//! to the namespace in which it was made, so only its making happens inside the pod.

pub mod capture;
pub mod neighbours;
pub mod ping;
pub mod throughput;

#[cfg(test)]
mod tests;
