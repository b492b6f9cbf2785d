//! PEM in any state: certificates and keys are read, or refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|pem: &[u8]| keydir_rustls::fuzzing::pem(pem));
