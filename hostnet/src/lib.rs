//! The kernel: TAP, UDP batch sockets, netlink, namespaces.
