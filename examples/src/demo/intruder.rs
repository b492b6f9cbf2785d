//! A client that was let in once and saves its sessions, with rustls alone: what it may do when its CA is gone.

use std::fmt;
use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use keydir_rustls::rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::{CertificateDer, ServerName};
use keydir_rustls::rustls::version::{TLS12, TLS13};
use keydir_rustls::rustls::{self, ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::authority::Leaf;
use crate::failure::Failure;
use crate::target::Target;

const PATIENCE: Duration = Duration::from_secs(10);

/// One way to resume: a version of TLS, and where the server's sessions are.
#[derive(Debug)]
struct Way {
    name: &'static str,
    version: &'static SupportedProtocolVersion,
    target: Target,
}

/// A client with a leaf and a session of each way.
pub(super) struct Outsider {
    ways: Vec<(Way, Saved)>,
}

struct Saved {
    config: Arc<ClientConfig>,
    /// The same without any session.
    fresh: Arc<ClientConfig>,
    offered: Arc<Store>,
}

/// What became of an attempt to get in.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    In(HandshakeKind),
    Refused,
    /// Neither: that proves nothing.
    Unclear(String),
}

/// How the attempts after the removal of one CA went.
#[derive(Debug)]
pub(super) struct Entry {
    removed: String,
    remaining: String,
    attempts: Vec<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    way: &'static str,
    full: Verdict,
    resumed: Verdict,
    /// Of a client of the remaining CA, with a session from before the removal.
    resident: Verdict,
}

impl Outsider {
    /// Connects each way until a session resumes, so that it is certain that the removal, and nothing else, ends that.
    pub(super) async fn enter(
        leaf: &Leaf,
        roots: &[CertificateDer<'static>],
        targets: &[Target; 2],
    ) -> Result<Self, Failure> {
        let [in_memory, in_tickets] = targets;
        let mut ways = Vec::new();
        for (name, version, target) in [
            ("TLS 1.3, server's memory", &TLS13, in_memory),
            ("TLS 1.3, ticket", &TLS13, in_tickets),
            ("TLS 1.2, server's memory", &TLS12, in_memory),
            ("TLS 1.2, ticket", &TLS12, in_tickets),
        ] {
            let way = Way {
                name,
                version,
                target: target.clone(),
            };
            let saved = Saved::new(&way, leaf, roots)?;
            for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let verdict = try_to_enter(&saved.config, &way.target).await;
                if verdict != Verdict::In(expected) {
                    return Err(Failure::Waited(format!(
                        "before the removal, {name}: expected to get in ({expected:?}), but {verdict}"
                    )));
                }
            }
            ways.push((way, saved));
        }
        Ok(Self { ways })
    }
}

impl Saved {
    fn new(way: &Way, leaf: &Leaf, roots: &[CertificateDer<'static>]) -> Result<Self, Failure> {
        let mut trusted = RootCertStore::empty();
        for root in roots {
            trusted.add(root.clone())?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[way.version])?
            .with_root_certificates(trusted)
            .with_client_auth_cert(vec![leaf.der.clone()], leaf.key_der())?;
        let mut fresh = config.clone();
        fresh.resumption = Resumption::disabled();
        let offered = Arc::new(Store::new());
        let mut config = config;
        config.resumption = Resumption::store(Arc::clone(&offered) as _);
        Ok(Self {
            config: Arc::new(config),
            fresh: Arc::new(fresh),
            offered,
        })
    }

    /// Tries with a saved session. That one was really offered is made sure of.
    async fn resume(&self, target: &Target) -> Verdict {
        let before = self.offered.given.load(Ordering::SeqCst);
        let verdict = try_to_enter(&self.config, target).await;
        if self.offered.given.load(Ordering::SeqCst) == before {
            return Verdict::Unclear("there was no session to offer".to_owned());
        }
        verdict
    }
}

/// A request on a new connection.
async fn try_to_enter(config: &Arc<ClientConfig>, target: &Target) -> Verdict {
    let tcp = match TcpStream::connect((target.host.as_str(), target.port)).await {
        Ok(tcp) => tcp,
        Err(error) => return Verdict::Unclear(error.to_string()),
    };
    let request = async {
        let connector = TlsConnector::from(Arc::clone(config));
        let mut tls = connector.connect(target.name.clone(), tcp).await?;
        let kind = tls.get_ref().1.handshake_kind();
        tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = [0; 12];
        // To a TLS 1.3 client the handshake looks finished before the server has verified it: only an answer counts.
        tls.read_exact(&mut answer).await?;
        // To the end, so that the sessions which come along are kept.
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest).await;
        Ok::<_, Error>((answer == *b"HTTP/1.1 200", kind))
    };
    match timeout(PATIENCE, request).await {
        Ok(Ok((true, Some(kind)))) => Verdict::In(kind),
        Ok(Ok(_)) => Verdict::Unclear("the answer is not understood".to_owned()),
        Ok(Err(error)) if is_refusal(&error) => Verdict::Refused,
        Ok(Err(error)) => Verdict::Unclear(error.to_string()),
        Err(_) => Verdict::Unclear("no answer came".to_owned()),
    }
}

/// The server says so by an alert, and waits until the client has read it. A connection that just breaks is no refusal.
fn is_refusal(error: &Error) -> bool {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::AlertReceived(_)))
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(HandshakeKind::Resumed) => f.write_str("resumed"),
            Self::In(_) => f.write_str("let in by a full handshake"),
            Self::Refused => f.write_str("refused"),
            Self::Unclear(why) => write!(f, "unclear: {why}"),
        }
    }
}

impl Entry {
    /// The attack, and beside it one who may come in: if he did not resume, "refused" would mean nothing.
    pub(super) async fn attempt(
        removed: &str,
        remaining: &str,
        intruder: &Outsider,
        resident: &Outsider,
    ) -> Result<Self, Failure> {
        let mut attempts = Vec::new();
        for ((way, intruder), (_, resident)) in intruder.ways.iter().zip(&resident.ways) {
            attempts.push(Attempt {
                way: way.name,
                full: try_to_enter(&intruder.fresh, &way.target).await,
                resumed: intruder.resume(&way.target).await,
                resident: resident.resume(&way.target).await,
            });
        }
        Ok(Self {
            removed: removed.to_owned(),
            remaining: remaining.to_owned(),
            attempts,
        })
    }

    /// Nobody of the removed CA got in, and whoever remains resumed.
    pub(super) fn is_fine(&self) -> bool {
        let resumes = Verdict::In(HandshakeKind::Resumed);
        let refused = |attempt: &Attempt| attempt.full == Verdict::Refused && attempt.resumed == Verdict::Refused;
        self.attempts
            .iter()
            .all(|attempt| refused(attempt) && attempt.resident == resumes)
    }

    /// A small table.
    pub(super) fn lines(&self) -> Vec<String> {
        let row = |way: &str, full: &str, resumed: &str, resident: &str| {
            format!("{way:<26} {full:<16} {resumed:<16} {resident}")
        };
        let (removed, remaining) = (&self.removed, &self.remaining);
        let mut lines = vec![row(
            "after the removal",
            &format!("{removed} full"),
            &format!("{removed} session"),
            &format!("{remaining} session"),
        )];
        lines.extend(self.attempts.iter().map(|attempt| {
            row(
                &format!("  {}", attempt.way),
                &attempt.full.to_string(),
                &attempt.resumed.to_string(),
                &attempt.resident.to_string(),
            )
        }));
        lines
    }
}

/// The last line of the demo: what all attempts together came to.
pub(super) fn verdict(entries: &[Entry]) -> String {
    let word = |pick: fn(&Attempt) -> &Verdict| {
        let mut verdicts = entries.iter().flat_map(|entry| &entry.attempts).map(pick).peekable();
        if verdicts.peek().is_none() {
            return "not tried";
        }
        verdicts.fold("refused", |word, verdict| match verdict {
            Verdict::In(_) => "LET IN",
            Verdict::Unclear(_) if word == "refused" => "unclear",
            Verdict::Unclear(_) | Verdict::Refused => word,
        })
    };
    let (full, resumed) = (word(|attempt| &attempt.full), word(|attempt| &attempt.resumed));
    format!("removed CA: {full} (full), {resumed} (resumed)")
}

/// Counts the sessions that are offered.
#[derive(Debug)]
struct Store {
    sessions: ClientSessionMemoryCache,
    given: AtomicUsize,
}

impl Store {
    fn new() -> Self {
        Self {
            sessions: ClientSessionMemoryCache::new(32),
            given: AtomicUsize::new(0),
        }
    }

    fn count<T>(&self, session: Option<T>) -> Option<T> {
        self.given.fetch_add(usize::from(session.is_some()), Ordering::SeqCst);
        session
    }
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(name, group);
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.sessions.kx_hint(name)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(name, session);
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.count(self.sessions.tls12_session(name))
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.sessions.remove_tls12_session(name);
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(name, ticket);
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.count(self.sessions.take_tls13_ticket(name))
    }
}
