//! The CNI plugin `weft-cni`.
fn main() {}
