//! The ring: a CRDT of address ranges and its allocator (pure).
