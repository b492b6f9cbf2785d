//! The cryptography of this run.

use std::sync::Arc;

use rustls::server::ProducesTickets;

#[cfg(feature = "aws-lc-rs")]
pub(crate) use rustls::crypto::aws_lc_rs::default_provider as provider;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
pub(crate) use rustls::crypto::ring::default_provider as provider;

pub(crate) fn new_ticketer() -> Arc<dyn ProducesTickets> {
    #[cfg(feature = "aws-lc-rs")]
    return rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return rustls::crypto::ring::Ticketer::new().unwrap();
}
