//! What a service adds in the libraries that it has already, so that its certificates and its CAs rotate while it runs.
//! Each module is one host, to copy from; the README shows the lines of keydir in each, and says what a host cannot do.

pub mod actix_server;
pub mod hyper_client;
pub mod hyper_server;
pub mod quinn_client;
pub mod quinn_server;
pub mod reqwest_client;
pub mod tonic_client;
pub mod tonic_server;
pub mod whoami;

/// Any error that can be passed between threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
