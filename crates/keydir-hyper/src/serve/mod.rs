//! Serving HTTP over connections that know what they rest on.

mod accepting;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "axum-server")]
mod axum_server;
mod connection;
mod gate;
mod per_connection;
#[cfg(any(feature = "axum", feature = "tonic"))]
mod queue;
mod server;
mod stopping;
mod stream;
#[cfg(feature = "tonic")]
mod tonic;
mod until;

#[cfg(feature = "axum")]
pub use self::axum::{ConnectionInfo, Listener};
#[cfg(feature = "axum-server")]
pub use self::axum_server::{AxumAcceptor, AxumService};
#[cfg(feature = "tonic")]
pub use self::tonic::Incoming;
pub use gate::{Gate, GateFuture, GateLayer};
pub use server::{Server, serve};
pub use stream::ServerStream;
