//! The daemon and command line weft.
