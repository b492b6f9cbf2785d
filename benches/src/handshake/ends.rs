//! Who shakes hands, and how.

use std::fmt::Debug;

use keydir_rustls::{Acceptor, Connector};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::configs::{Files, Ours, Pair, Plain};
use super::{Case, Over};

/// Whose ends they are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Side {
    Ours,
    /// What is in our `Acceptor` and `Connector`, alone.
    OurConfigs,
    Static,
    /// Static, with a client that tells the server the names of the CAs.
    Telling,
    /// The same, with their resolver in the server.
    HotReload,
    ReloadableResolver,
}

impl Side {
    const ALL: [Self; 6] = [
        Self::Ours,
        Self::OurConfigs,
        Self::Static,
        Self::Telling,
        Self::HotReload,
        Self::ReloadableResolver,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "keydir",
            Self::OurConfigs => "keydir's configs",
            Self::Static => "static",
            Self::Telling => "static that tells",
            Self::HotReload => "tls-hot-reload",
            Self::ReloadableResolver => "rustls-cert-reloadable-resolver",
        }
    }

    pub(super) fn of(name: &str) -> Self {
        let side = Self::ALL.into_iter().find(|side| side.name() == name);
        side.unwrap_or_else(|| panic!("no side {name}"))
    }

    /// Makes the ends with this number.
    pub(super) fn maker(self, files: Files, case: Case) -> Box<dyn Fn(usize) -> Ends> {
        let over = move |pair: Pair| match case.over {
            Over::Memory => Ends::Memory(pair),
            Over::Tokio => Ends::Tokio(pair.0.into(), pair.1.into()),
        };
        match self {
            Self::Ours if case.over == Over::Tokio => {
                let ours = Ours::new(files, case);
                Box::new(move |n| {
                    let (client, server) = ours.builders(n);
                    Ends::Ours(client.connector().unwrap(), server.acceptor().unwrap())
                })
            }
            Self::Ours | Self::OurConfigs => {
                let ours = Ours::new(files, case);
                Box::new(move |n| over(ours.configs(n)))
            }
            Self::Static | Self::Telling => {
                let plain = Plain::new(files, case, self == Self::Telling);
                Box::new(move |n| over(plain.configs(n, None)))
            }
            #[cfg(feature = "peers")]
            Self::HotReload | Self::ReloadableResolver => {
                let resolver = match self {
                    Self::HotReload => super::peers::tls_hot_reload,
                    _ => super::peers::reloadable_resolver,
                };
                // One for all servers: it remembers nothing of a handshake.
                let resolver = resolver(files.leaf("server", 0));
                let plain = Plain::new(files, case, true);
                Box::new(move |n| over(plain.configs(n, Some(resolver.clone()))))
            }
            #[cfg(not(feature = "peers"))]
            Self::HotReload | Self::ReloadableResolver => panic!("built without the peers"),
        }
    }
}

/// A client and a server.
#[derive(Clone)]
pub(super) enum Ends {
    Memory(Pair),
    Tokio(TlsConnector, TlsAcceptor),
    Ours(Connector, Acceptor),
}

impl Ends {
    /// One connection, from nothing to its end. What is async is put on the heap first, as a task is.
    pub(super) fn connect(&self, name: &ServerName<'static>, tools: &mut Tools) -> [HandshakeKind; 2] {
        match self {
            Self::Memory(pair) => in_memory(pair, name, &mut tools.wire),
            Self::Tokio(connector, acceptor) => tools.runtime.block_on(Box::pin(async {
                let (near, far) = duplex(BUFFER);
                let (client, server) = streams(connector.connect(name.clone(), near), acceptor.accept(far)).await;
                [client.get_ref().1.handshake_kind(), server.get_ref().1.handshake_kind()]
            })),
            Self::Ours(connector, acceptor) => tools.runtime.block_on(Box::pin(async {
                let (near, far) = duplex(BUFFER);
                let (client, server) = streams(connector.connect(name.clone(), near), acceptor.accept(far)).await;
                [client.get_ref().1.handshake_kind(), server.get_ref().1.handshake_kind()]
            })),
        }
        .map(Option::unwrap)
    }
}

/// So that nobody waits.
const BUFFER: usize = 1 << 16;

/// What a handshake takes place in.
pub(super) struct Tools {
    wire: Vec<u8>,
    runtime: Runtime,
}

impl Tools {
    pub(super) fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            wire: Vec::with_capacity(1 << 20),
            runtime: runtime.enable_time().build().unwrap(),
        }
    }
}

async fn streams<C: AsyncRead + Unpin, S: AsyncWrite + Unpin, E: Debug>(
    client: impl Future<Output = Result<C, E>>,
    server: impl Future<Output = Result<S, E>>,
) -> (C, S) {
    let (client, server) = tokio::join!(client, server);
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    // The sessions come before it.
    server.write_all(b".").await.unwrap();
    server.flush().await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    (client, server)
}

fn in_memory((client, server): &Pair, name: &ServerName<'static>, wire: &mut Vec<u8>) -> [Option<HandshakeKind>; 2] {
    let client = ClientConnection::new(client.clone(), name.clone()).unwrap();
    let mut client = Connection::from(client);
    let mut server = Connection::from(ServerConnection::new(server.clone()).unwrap());
    // Until nobody has anything to say; the sessions come last.
    while transfer(&mut client, &mut server, wire) | transfer(&mut server, &mut client, wire) {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    [client.handshake_kind(), server.handshake_kind()]
}

fn transfer(from: &mut Connection, to: &mut Connection, wire: &mut Vec<u8>) -> bool {
    wire.clear();
    while from.wants_write() {
        from.write_tls(wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().unwrap();
    }
    !wire.is_empty()
}
