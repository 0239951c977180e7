//! Peers, links and gossip as a state machine (pure).
