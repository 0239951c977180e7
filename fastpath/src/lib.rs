//! The packet engine: MAC table, encapsulate and decapsulate, cut and join, verdicts (pure).
