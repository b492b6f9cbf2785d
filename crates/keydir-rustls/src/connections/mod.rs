//! Connections that know what they rest on, and end when that is revoked. With the feature `tokio`.

mod acceptor;
mod connection;
mod connector;
mod ended;
mod handshake;
mod stream;
mod table;

pub use acceptor::Acceptor;
pub use connection::Connection;
pub use connector::{Connector, Term};
pub use ended::{Ended, HandshakeError};
pub use stream::TlsStream;
