//! A client on rustls alone, without keydir: what a peer does that has never heard of it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::version::{TLS12, TLS13};
use keydir_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::{Ca, Leaf};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// A client with its own sessions.
#[derive(Debug)]
pub struct PlainClient {
    config: Arc<ClientConfig>,
    port: u16,
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Connection(StreamOwned<ClientConnection, TcpStream>);

/// What the server has answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, if it is JSON.
    pub json: Value,
    /// Whether this side says that it resumed.
    pub resumed: bool,
}

impl PlainClient {
    /// A client that trusts servers of these CAs.
    pub fn new(port: u16, roots: &[&Ca], leaf: Option<&Leaf>, version: Version) -> Self {
        let mut trusted = RootCertStore::empty();
        roots.iter().for_each(|ca| trusted.add(ca.der().clone()).unwrap());
        let version = match version {
            Version::Tls12 => &TLS12,
            Version::Tls13 => &TLS13,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(trusted);
        let config = match leaf {
            Some(leaf) => builder
                .with_client_auth_cert(vec![leaf.der.clone()], leaf.key_der())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self {
            config: Arc::new(config),
            port,
        }
    }

    /// A TCP connection with TLS on it; the handshake happens with the first request.
    pub fn connect(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
        tcp.set_nodelay(true)?;
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        Ok(Connection(StreamOwned::new(tls, tcp)))
    }

    /// One GET on a connection of its own.
    pub fn get(&self) -> io::Result<Answer> {
        self.connect()?.get()
    }

    /// One GET; the answer says that it was a success, what it is, or there is none.
    pub fn json(&self) -> Option<Value> {
        let answer = self.get().ok()?;
        (answer.status == 200).then_some(answer.json)
    }
}

impl Connection {
    /// A GET; the connection can be used again.
    pub fn get(&mut self) -> io::Result<Answer> {
        self.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        self.receive()
    }

    /// Sends some bytes inside TLS.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Reads one answer.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.0.read_exact(&mut body)?;
        Ok(Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            json: serde_json::from_slice(&body).unwrap_or_default(),
            resumed: self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        })
    }

    /// Whether a byte comes back: of servers that answer with what they were sent.
    pub fn answers(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(1))
    }

    /// Whether the server has closed it.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0) | Err(_))
    }
}
