//! Free ports on loopback, below those that the system gives to outgoing connections.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

use crate::authority::random;
use crate::failure::Failure;
use crate::target::Target;

/// The system takes ports from 32768 on for the clients, and a busy client could hold the one that we want.
const FIRST: u16 = 20_000;
const PORTS: u16 = 12_000;

/// Listens on a free port; the target leads there.
pub(super) fn listen() -> Result<(TcpListener, Target), Failure> {
    let start = u16::from_be_bytes(random()?);
    let mut last = None;
    for offset in 0..200 {
        let port = FIRST + start.wrapping_add(offset) % PORTS;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        match listener {
            Ok(listener) => {
                let target = format!("https://localhost:{port}/").parse();
                let mut target: Target =
                    target.map_err(|error| Failure::Listen(address, Error::new(ErrorKind::InvalidInput, error)))?;
                // The name is checked against the certificate, but need not be looked up.
                target.host = Ipv4Addr::LOCALHOST.to_string();
                return Ok((listener, target));
            }
            Err(error) => last = Some(Failure::Listen(address, error)),
        }
    }
    Err(last.unwrap_or_else(|| Failure::Waited("no port is free".to_owned())))
}
