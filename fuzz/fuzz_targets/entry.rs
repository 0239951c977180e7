//! Entries, which any node hands on, and targets, which an operator types: what can be read can be written
//! down and read again, and says the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh::{MAX_ENTRY, Sealed, Target};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = Sealed::read(bytes) {
        assert!(bytes.len() <= MAX_ENTRY);
        assert_eq!(entry.bytes(), bytes);
        let again = Sealed::new((**entry).clone());
        // What was not of this version is gone; the rest stays.
        let read = Sealed::read(again.bytes()).expect("it was just written");
        assert_eq!(**read, **again);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(target) = text.parse::<Target>()
    {
        assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target));
    }
});
