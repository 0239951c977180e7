//! Real meshes over real TCP, on loopback within this process.
