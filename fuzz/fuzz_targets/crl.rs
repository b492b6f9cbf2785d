//! Certificate revocation lists in any state: read, or refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|der: &[u8]| keydir_rustls::fuzzing::crl(der));
