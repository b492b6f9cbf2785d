//! A server that is none: it asks for the password.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use keydir_postgres::{AsksForPassword, Login, Refused, SslMode};
use keydir_rustls::rustls::ServerConfig;
use keydir_rustls::rustls::pki_types::pem::PemObject;
use keydir_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsAcceptor;

use crate::directory::{anchors, credentials, password};
use crate::pki::{Ca, Leaf};
use crate::server::{Database, Server};

pub(crate) const CLEAR: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05salt";

/// SSLRequest.
const ASKS_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What each connection has sent, in order.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

pub(crate) struct Impostor {
    address: SocketAddr,
    heard: Heard,
}

impl Impostor {
    /// Asks for this; with TLS by this certificate, or without any.
    pub(crate) async fn new(asks: &'static [u8], leaf: Option<&Leaf>) -> Self {
        let acceptor = leaf.map(|leaf| {
            let chain = vec![CertificateDer::from_pem_slice(leaf.crt.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            let provider = keydir_rustls::crypto_provider().unwrap();
            let config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap();
            let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
            config.alpn_protocols = vec![b"postgresql".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
        tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                loop {
                    let (mut tcp, _) = listener.accept().await.unwrap();
                    let (acceptor, heard) = (acceptor.clone(), Arc::clone(&heard));
                    let number = heard.lock().unwrap().len();
                    heard.lock().unwrap().push(Vec::new());
                    tokio::spawn(async move {
                        let mut first = [0; 8];
                        while tcp.peek(&mut first).await.unwrap() < first.len() {}
                        if first == ASKS_FOR_TLS {
                            tcp.read_exact(&mut first).await.unwrap();
                            let answer = if acceptor.is_some() { b"S" } else { b"N" };
                            tcp.write_all(answer).await.unwrap();
                        }
                        match acceptor {
                            None => serve(tcp, asks, number, &heard).await,
                            Some(acceptor) => {
                                if let Ok(tls) = acceptor.accept(tcp).await {
                                    // Without the request in clear, the protocol is to be said there.
                                    let said = tls.get_ref().1.alpn_protocol().is_some();
                                    assert!(said || first == ASKS_FOR_TLS);
                                    serve(tls, asks, number, &heard).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { address, heard }
    }

    pub(crate) fn login(&self, mode: SslMode) -> Login {
        self.login_by(SslNegotiation::Postgres, mode)
    }

    fn login_by(&self, negotiation: SslNegotiation, mode: SslMode) -> Login {
        let files = ["r1", "r2"].map(|revision| (format!("{revision}.password"), password(revision)));
        let mut files = files.to_vec();
        files[1].0.push_str(".primary");
        let mut config = tokio_postgres::Config::new();
        config
            .host("localhost")
            .hostaddr(self.address.ip())
            .port(self.address.port())
            .ssl_negotiation(negotiation);
        Login::new(config, &credentials(files).1, mode).unwrap()
    }

    pub(crate) fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }
}

/// The one message of somebody who was asked for his password and does not tell it. Its length comes first.
pub(crate) fn says_only_who_it_is(bytes: &[u8]) {
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(bytes.len(), length as usize);
    assert!(!bytes.windows(6).any(|bytes| bytes == b"canary"));
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, asks: &[u8], number: usize, heard: &Heard) {
    let mut bytes = [0; 4096];
    let mut asked = false;
    while let Ok(1..) = stream.read(&mut bytes).await.inspect(|read| {
        heard.lock().unwrap()[number].extend_from_slice(&bytes[..*read]);
    }) {
        if !asked {
            asked = true;
            if stream.write_all(asks).await.and(stream.flush().await).is_err() {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_gets_nothing() {
    let leaf = Ca::new("anybody").leaf("localhost");
    for (what, asks) in [("clear", CLEAR), ("md5", MD5)] {
        for (mode, leaf) in [
            (SslMode::Disable, None),
            (SslMode::Prefer, None),
            (SslMode::Prefer, Some(&leaf)),
            (SslMode::Require, Some(&leaf)),
        ] {
            let what = format!("{what}, {mode:?}, with TLS: {}", leaf.is_some());
            let impostor = Impostor::new(asks, leaf).await;
            let login = impostor.login(mode);
            for attempt in 1..=2 {
                let error = login.connect().await.unwrap_err();
                assert_eq!(error.tries().len(), 1, "{what}: {error}");
                assert_eq!(error.tries()[0].refused, Refused::Impostor, "{what}: {error}");
                assert!(error.to_string().contains(&AsksForPassword.to_string()), "{error}");
                // No other was sent, and of each only who we say that we are: one message, whose length comes first.
                let heard = impostor.heard();
                assert_eq!(heard.len(), attempt, "{what}");
                for bytes in heard {
                    says_only_who_it_is(&bytes);
                }
            }
        }
    }
}

/// That the one above hears something where it should.
#[tokio::test(flavor = "multi_thread")]
async fn a_verified_server_may_ask() {
    let ca = Ca::new("ours");
    for negotiation in [SslNegotiation::Postgres, SslNegotiation::Direct] {
        let impostor = Impostor::new(CLEAR, Some(&ca.leaf("localhost"))).await;
        let login = impostor.login_by(negotiation, SslMode::VerifyFull(anchors(&ca)));
        let connecting = tokio::spawn(async move { login.connect().await.map(drop) });
        let told = || {
            impostor
                .heard()
                .iter()
                .any(|bytes| bytes.windows(6).any(|bytes| bytes == b"canary"))
        };
        assert!(crate::server::eventually(told));
        connecting.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_verified_hears_not_even_the_name() {
    let leaf = Ca::new("another").leaf("localhost");
    let ours = Ca::new("ours");
    let impostor = Impostor::new(CLEAR, Some(&leaf)).await;
    for mode in [SslMode::VerifyCa(anchors(&ours)), SslMode::VerifyFull(anchors(&ours))] {
        let error = impostor.login(mode).connect().await.unwrap_err();
        assert_eq!(error.tries()[0].refused, Refused::Other, "{error}");
        assert_eq!(error.tries().len(), 1, "{error}");
    }
    assert!(impostor.heard().iter().all(Vec::is_empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_with_postgresql() {
    let database = Database::without_rules(Server::shared()).await;
    database.rule("host {db} {db}_clear 127.0.0.1/32 password\nhost {db} {db}_md5 127.0.0.1/32 md5");
    database
        .create("clear", &format!("PASSWORD '{}'", password("clear")))
        .await;
    database
        .sql(&format!(
            "SET password_encryption = 'md5'; CREATE ROLE {{db}}_md5 LOGIN PASSWORD '{}'",
            password("md5")
        ))
        .await;
    for revision in ["clear", "md5"] {
        let (_dir, credentials) = credentials(crate::directory::logins(&database, &[revision]));
        for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
            let error = Login::new(database.config(), &credentials, mode)
                .unwrap()
                .connect()
                .await
                .unwrap_err();
            assert_eq!(error.tries()[0].refused, Refused::Impostor, "{error}");
        }
        let verified = SslMode::VerifyCa(anchors(&database.server.ca));
        Login::new(database.config(), &credentials, verified)
            .unwrap()
            .connect()
            .await
            .unwrap();
    }
}
