//! The parts of the router that touch the world: threads, sockets, files and clocks around the
//! pure crates.

pub mod datapath;
pub mod ipam_service;
pub mod ipam_store;
pub mod kube;
pub mod mesh_driver;
pub mod rules_keeper;
pub mod sessions;
