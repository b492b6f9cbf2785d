//! Encoded sessions: the client's chain is found, or nothing is.
#![no_main]

libfuzzer_sys::fuzz_target!(|session: &[u8]| keydir_rustls::fuzzing::session(session));
