//! Connections that know what they rest on: over an acceptor, a connector, or both.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use keydir::Dir;
use keydir_rustls::{
    Acceptor, Connector, Ended, HandshakeError, Identity, TlsStream, TrustAnchors, client_config, server_config,
};
use rcgen::SanType;
use rcgen::string::Ia5String;
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::time::timeout;

use crate::support::*;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_millis(300);

/// Both ends of one connection.
pub(crate) type Ends = (TlsStream<DuplexStream>, TlsStream<DuplexStream>);
pub(crate) type Refused = (Result<(), HandshakeError>, Result<(), HandshakeError>);

/// `Err` if either side refuses the other; with TLS 1.3 a client learns of it at the first read.
pub(crate) async fn meet(connector: &Connector, acceptor: &Acceptor) -> Result<Ends, Refused> {
    let (near, far) = duplex(1 << 16);
    let client = async {
        let mut tls = connector.connect(NAME.try_into().unwrap(), near).await?;
        let mut byte = [0];
        tls.read_exact(&mut byte).await.map_err(HandshakeError::Tls)?;
        Ok(tls)
    };
    let server = async {
        let mut tls = acceptor.accept(far).await?;
        tls.write_all(b"!").await.map_err(HandshakeError::Tls)?;
        tls.flush().await.map_err(HandshakeError::Tls)?;
        Ok(tls)
    };
    match timeout(PATIENCE, async { tokio::join!(client, server) }).await.unwrap() {
        (Ok(client), Ok(server)) => Ok((client, server)),
        (client, server) => Err((client.map(drop), server.map(drop))),
    }
}

pub(crate) fn acceptor(scene: &Scene, way: Way) -> Acceptor {
    let builder = server_config(&scene.server_identity).require_client(&scene.anchors);
    let builder = builder.versions(way.versions);
    let builder = if way.tickets { builder.tickets() } else { builder };
    builder.acceptor().unwrap().with_grace(GRACE)
}

pub(crate) fn connector(scene: &Scene, ca: &Ca, way: Way) -> Connector {
    let identity = identity(&ca.leaf("client"));
    let builder = client_config(&scene.server_ca).identity(&identity);
    builder.versions(way.versions).connector().unwrap().with_grace(GRACE)
}

/// The uses of a revision, by the report.
fn uses(dir: &Dir, usage: &str, revision: &str) -> usize {
    let sets = dir.report().sets;
    let set = sets.iter().find(|set| set.usage == usage).unwrap();
    set.uses(revision)
}

#[tokio::test]
async fn a_connection_knows_what_it_rests_on() {
    for way in WAYS {
        let scene = Scene::new();
        let (acceptor, connector) = (acceptor(&scene, way), connector(&scene, &scene.c1, way));
        let (first_client, first_server) = meet(&connector, &acceptor).await.unwrap();
        let (client, server) = meet(&connector, &acceptor).await.unwrap();
        for (stream, resumed) in [
            (&first_client, false),
            (&first_server, false),
            (&client, true),
            (&server, true),
        ] {
            let connection = stream.connection();
            assert_eq!(connection.is_resumed(), resumed, "{way:?}");
            assert_eq!(connection.identity().unwrap().id().as_str(), "r1", "{way:?}");
            assert!(connection.stands() && connection.why().is_none());
        }
        let peer = |stream: &TlsStream<_>| {
            let peer = stream.connection().peer().unwrap();
            (peer.ca().unwrap().to_string(), peer.dns_names())
        };
        assert_eq!(peer(&server), ("c1".to_owned(), vec!["client".to_owned()]));
        assert_eq!(peer(&client), ("s1".to_owned(), vec![NAME.to_owned()]));

        assert_eq!((acceptor.connections(), connector.connections()), (2, 2));
        let own = scene.server_identity.live().dir();
        assert_eq!(uses(&scene.cas, "anchors", "c1"), 2, "{:?}", scene.cas.report());
        assert_eq!(uses(own, "tls-identity", "r1"), 2);
        let kept = server.connection().clone();
        drop((first_client, first_server, client, server));
        assert_eq!((acceptor.connections(), connector.connections()), (0, 0));
        assert_eq!(uses(&scene.cas, "anchors", "c1"), 0);
        assert_eq!(uses(own, "tls-identity", "r1"), 0);
        assert_eq!(kept.peer().unwrap().ca().unwrap(), "c1");
    }
}

#[tokio::test]
async fn connections_of_a_removed_ca_end_within_the_grace_and_the_others_live() {
    for way in WAYS {
        let scene = Scene::new();
        let acceptor = acceptor(&scene, way);
        let of = |ca| connector(&scene, ca, way);
        let (_c1, mut server1) = meet(&of(&scene.c1), &acceptor).await.unwrap();
        let (mut c2, mut server2) = meet(&of(&scene.c2), &acceptor).await.unwrap();
        let connection = server1.connection().clone();
        let (ended, closing) = (connection.ended(), connection.closing());

        scene.remove_c1();
        assert!(!connection.stands(), "from the moment of loading");
        assert!(server2.connection().stands());
        let why = timeout(PATIENCE, ended).await.unwrap();
        assert!(
            matches!(&why, Ended::Peer { ca: Some(ca), .. } if ca.as_str() == "c1"),
            "{why:?}"
        );
        timeout(PATIENCE, closing).await.unwrap();
        server1.write_all(b"what was in flight").await.unwrap();

        let error = timeout(PATIENCE, server1.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted, "{error}");
        assert!(error.to_string().contains("c1"), "{error}");
        let error = server1.write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);

        c2.write_all(b"?").await.unwrap();
        c2.flush().await.unwrap();
        assert_eq!(server2.read_u8().await.unwrap(), b'?');
        assert!(server2.connection().stands());
    }
}

/// Nobody asks whether the connection stands; it is told all the same.
#[tokio::test]
async fn a_connection_that_only_waits_is_told_and_cut() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]);
    let (_client, server) = meet(&connector(&scene, &scene.c1, WAYS[0]), &acceptor).await.unwrap();
    let connection = server.connection().clone();
    // The halves of a stream are often waited for in different tasks.
    let (mut read, mut write) = tokio::io::split(server);
    let reading = tokio::spawn(async move { read.read_u8().await });
    let writing = tokio::spawn(async move {
        loop {
            // The peer reads nothing, so that this waits too.
            write.write_all(&[0; 4096]).await?;
        }
        #[expect(unreachable_code, reason = "it names the type")]
        Ok::<(), io::Error>(())
    });
    scene.remove_c1();
    timeout(PATIENCE, connection.ended()).await.unwrap();
    let results = (
        timeout(PATIENCE, reading).await.unwrap().unwrap().map(drop),
        timeout(PATIENCE, writing).await.unwrap().unwrap(),
    );
    for result in [results.0, results.1] {
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}

#[tokio::test]
async fn a_revoked_identity_ends_the_connections_that_presented_it() {
    let scene = Scene::new();
    let root = Ca::new("servers");
    let (r1, r2) = (root.leaf(NAME), root.leaf(NAME));
    let own = Dir::in_memory(r1.files("r1"));
    let identity = Identity::in_dir(&own).unwrap();
    let servers = anchors_in(&ca_dir(&[("s1", &root)]));
    let acceptor = server_config(&identity)
        .require_client(&scene.anchors)
        .acceptor()
        .unwrap();
    let clients = identity_of(&scene.c1);
    let connector = client_config(&servers).identity(&clients).connector().unwrap();

    let (_client, old) = meet(&connector, &acceptor).await.unwrap();
    let staged: Vec<_> = r2
        .files("r2")
        .into_iter()
        .chain(
            r1.files("r1")
                .map(|(name, bytes)| (name.trim_end_matches(".primary").to_owned(), bytes)),
        )
        .collect();
    own.publish(staged).unwrap();
    let (_client, new) = meet(&connector, &acceptor).await.unwrap();
    assert!(old.connection().stands(), "to lose the mark is no revocation");
    assert_eq!(new.connection().identity().unwrap().id().as_str(), "r2");

    own.publish(r2.files("r2")).unwrap();
    assert!(!old.connection().stands());
    let why = timeout(PATIENCE, old.connection().ended()).await.unwrap();
    assert!(matches!(&why, Ended::Identity(id) if id.as_str() == "r1"), "{why:?}");
    assert!(new.connection().stands());
}

fn identity_of(ca: &Ca) -> Identity {
    identity(&ca.leaf("client"))
}

#[tokio::test]
async fn a_connection_does_not_outlive_the_peers_certificate() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]);
    let mut params = leaf_params("client");
    let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    params.not_before = now - Duration::from_secs(60);
    params.not_after = now + Duration::from_secs(3);
    let short = identity(&scene.c1.leaf_with(params));
    let connector = client_config(&scene.server_ca).identity(&short).connector().unwrap();
    let (_client, server) = meet(&connector, &acceptor).await.unwrap();
    let (_other, lasting) = meet(&self::connector(&scene, &scene.c1, WAYS[0]), &acceptor)
        .await
        .unwrap();
    let why = timeout(PATIENCE, server.connection().ended()).await.unwrap();
    assert!(why.to_string().contains("xpired"), "{why}");
    assert!(lasting.connection().stands());
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let scene = Scene::new();
    let acceptor = acceptor(&scene, WAYS[0]).with_timeout(Duration::from_millis(50));
    let (_silent, far) = duplex(1024);
    let refused = timeout(PATIENCE, acceptor.accept(far)).await.unwrap();
    assert!(matches!(refused, Err(HandshakeError::TooSlow(_))));
    let connector = connector(&scene, &scene.c1, WAYS[0]).with_timeout(Duration::from_millis(50));
    let (near, _silent) = duplex(1024);
    let refused = timeout(PATIENCE, connector.connect(NAME.try_into().unwrap(), near))
        .await
        .unwrap();
    assert!(matches!(refused, Err(HandshakeError::TooSlow(_))));
    assert_eq!((acceptor.connections(), connector.connections()), (0, 0));
}

/// Counts what was read: on one thread, what an acceptor has read it has also understood.
#[derive(Debug)]
pub(crate) struct Counted(DuplexStream, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let done = Pin::new(&mut self.0).poll_read(cx, buffer);
        self.1.fetch_add(buffer.filled().len() - before, Ordering::SeqCst);
        done
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A client whose Finished has a record of its own.
pub(crate) fn in_small_records(scene: &Scene, way: Way) -> Arc<ClientConfig> {
    let mut config = (*scene.client(&scene.c1, way)).clone();
    config.max_fragment_size = Some(64);
    Arc::new(config)
}

/// A client that withholds its last record, the Finished, until something has happened. What becomes of the connection.
pub(crate) async fn straddle<T, E>(
    client: &Arc<ClientConfig>,
    accept: impl AsyncFnOnce(Counted) -> Result<T, E>,
    happens: impl FnOnce(),
) -> Result<T, E> {
    let (mut near, far) = duplex(1 << 16);
    let read = Arc::new(AtomicUsize::new(0));
    let server = accept(Counted(far, Arc::clone(&read)));
    let client = async {
        let name = NAME.try_into().unwrap();
        let mut tls: rustls::Connection = rustls::ClientConnection::new(Arc::clone(client), name).unwrap().into();
        let mut written = 0;
        let mut buffer = [0; 1 << 14];
        let last = loop {
            let mut flight = sent(&mut tls);
            let last = if written > 0 {
                flight.split_off(boundaries(&flight).pop().unwrap())
            } else {
                Vec::new()
            };
            near.write_all(&flight).await.unwrap();
            written += flight.len();
            if !last.is_empty() {
                break last;
            }
            while !tls.wants_write() {
                let n = near.read(&mut buffer).await.unwrap();
                receive(&mut tls, &buffer[..n]).unwrap();
            }
        };
        while read.load(Ordering::SeqCst) < written {
            tokio::task::yield_now().await;
        }
        happens();
        near.write_all(&last).await.unwrap();
        near
    };
    let (_near, accepted) = tokio::join!(client, server);
    accepted
}

#[tokio::test]
async fn a_connection_that_straddles_the_removal_is_refused_itself() {
    for way in WAYS {
        let scene = Scene::new();
        let acceptor = acceptor(&scene, way);
        let refused = straddle(
            &in_small_records(&scene, way),
            async |io| acceptor.accept(io).await,
            || scene.remove_c1(),
        )
        .await;
        let Err(HandshakeError::Ended(Ended::Peer { ca: None, .. })) = refused else {
            panic!("{way:?}: {refused:?}");
        };
        assert_eq!(acceptor.connections(), 0);

        // The control: the same config without the acceptor.
        let scene = Scene::new();
        let plain = tokio_rustls::TlsAcceptor::from(scene.server(way));
        let lives = straddle(
            &in_small_records(&scene, way),
            async |io| plain.accept(io).await,
            || scene.remove_c1(),
        )
        .await;
        assert!(lives.is_ok(), "{way:?}: {lives:?}");
    }
}

/// Its session rests on the leaf of the handshake that it comes from; the next handshake does not.
#[tokio::test]
async fn a_resumed_connection_that_straddles_the_removal_is_refused_and_the_next_is_a_full_one() {
    for way in WAYS {
        let scene = Scene::new();
        let acceptor = acceptor(&scene, way);
        let own = Dir::in_memory(scene.c1.leaf("client").files("r1"));
        let builder = client_config(&scene.server_ca).identity(&Identity::in_dir(&own).unwrap());
        let mut client = builder.versions(way.versions).build().unwrap();
        client.max_fragment_size = Some(64);
        // As any client does that knows nothing of keydir.
        client.resumption = Resumption::in_memory_sessions(16);
        let client = Arc::new(client);
        assert_eq!(connect(&client, acceptor.config()), End::Full);
        assert_eq!(connect(&client, acceptor.config()), End::Resumed);
        own.publish(scene.c2.leaf("client").files("r2")).unwrap();
        let refused = straddle(&client, async |io| acceptor.accept(io).await, || scene.remove_c1()).await;
        let Err(HandshakeError::Ended(Ended::Peer { ca: None, .. })) = refused else {
            panic!("{way:?}: {refused:?}");
        };
        assert_eq!(connect(&client, acceptor.config()), End::Full, "{way:?}");
        assert_eq!(connect(&client, acceptor.config()), End::Resumed, "{way:?}");
    }
}

#[tokio::test]
async fn a_connector_resumes_again_after_a_loss_and_after_a_new_identity() {
    for way in WAYS {
        let scene = Scene::new();
        let acceptor = acceptor(&scene, way);
        let old = Ca::new("old servers");
        let servers = ca_dir(&[("s1", &scene.root), ("s0", &old)]);
        let own = Dir::in_memory(scene.c1.leaf("client").files("r1"));
        let identity = Identity::in_dir(&own).unwrap();
        let builder = client_config(&anchors_in(&servers))
            .identity(&identity)
            .versions(way.versions);
        let connector = builder.clone().connector().unwrap();
        let drop_in = Arc::new(builder.build().unwrap());

        let twice = async || {
            let mut resumed = Vec::new();
            for _ in 0..2 {
                let (client, server) = meet(&connector, &acceptor).await.unwrap();
                let presented = client.connection().identity().unwrap().id().to_string();
                let leaf = &server.connection().peer().unwrap().certificates()[0];
                let current = identity.primary().unwrap();
                assert_eq!(leaf, &current.certificates()[0], "{way:?}");
                resumed.push((client.connection().is_resumed(), presented));
            }
            resumed
        };
        let (full, again) = (|id: &str| (false, id.to_owned()), |id: &str| (true, id.to_owned()));
        assert_eq!(twice().await, [full("r1"), again("r1")], "{way:?}");
        servers.publish(ca_files(&[("s1", &scene.root)])).unwrap();
        assert_eq!(twice().await, [full("r1"), again("r1")], "{way:?}: after a loss");
        own.publish(scene.c1.leaf("client").files("r2")).unwrap();
        assert_eq!(twice().await, [full("r2"), again("r2")], "{way:?}: with a new identity");

        // The control: one config for ever resumes no more.
        let plain = scene.server(way);
        for _ in 0..2 {
            assert_eq!(connect(&drop_in, &plain), End::Full, "{way:?}");
        }
    }
}

/// A server may send a ticket at any time. One that comes after its CA was removed must not be good for anything.
#[tokio::test]
async fn a_ticket_that_comes_after_the_removal_is_useless() {
    let way = WAYS[0];
    let scene = Scene::new();
    let other = Ca::new("other servers");
    let both = [("s1", &scene.root), ("s2", &other)];
    let servers = ca_dir(&both);
    let builder = client_config(&anchors_in(&servers)).identity(&identity_of(&scene.c1));
    let connector = builder.clone().connector().unwrap();
    let acceptor = acceptor(&scene, way);

    // With TLS 1.3 the client is done before the server has sent its tickets.
    let (near, far) = duplex(1 << 16);
    let name = || NAME.try_into().unwrap();
    let connecting = connector.connect(name(), near);
    let (client, server) = tokio::join!(connecting, acceptor.accept(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    servers.publish(ca_files(&[("s2", &other)])).unwrap();
    server.write_all(b"!").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!', "the tickets came before this");
    assert!(!client.connection().stands());
    let (client, _) = meet(&connector, &acceptor).await.unwrap_err();
    assert!(matches!(client, Err(HandshakeError::Tls(_))), "{client:?}");

    // The control: one config with rustls's own sessions.
    let again = ca_dir(&both);
    let mut naive = client_config(&anchors_in(&again))
        .identity(&identity_of(&scene.c1))
        .build()
        .unwrap();
    naive.resumption = Resumption::in_memory_sessions(16);
    let naive = Arc::new(naive);
    let config = scene.server(way);
    assert_eq!(connect(&naive, &config), End::Full);
    again.publish(ca_files(&[("s2", &other)])).unwrap();
    assert_eq!(connect(&naive, &config), End::Resumed);
}

#[tokio::test]
async fn a_rule_of_the_application_is_reloaded() {
    let scene = Scene::new();
    let allowed = Arc::new(std::sync::Mutex::new(vec!["a".to_owned(), "b".to_owned()]));
    let rule = Arc::clone(&allowed);
    let anchors = scene.anchors.only(move |peer| {
        let allowed = rule.lock().unwrap();
        peer.dns_names().iter().any(|name| allowed.contains(name))
    });
    let acceptor = server_config(&scene.server_identity)
        .require_client(&anchors)
        .acceptor()
        .unwrap();
    let client = |name: &str| {
        let identity = identity(&scene.c1.leaf(name));
        client_config(&scene.server_ca).identity(&identity).connector().unwrap()
    };
    let (a, b, c) = (client("a"), client("b"), client("c"));
    let (_a, server_a) = meet(&a, &acceptor).await.unwrap();
    let (_b, server_b) = meet(&b, &acceptor).await.unwrap();
    let (refused, _) = meet(&c, &acceptor).await.unwrap_err();
    assert!(format!("{refused:?}").contains("AccessDenied"), "{refused:?}");

    allowed.lock().unwrap().retain(|name| name != "b");
    let (refused, _) = meet(&b, &acceptor).await.unwrap_err();
    assert!(
        format!("{refused:?}").contains("AccessDenied"),
        "its session is not resumed: {refused:?}"
    );
    assert!(
        server_b.connection().stands(),
        "nobody has said that the rule has changed"
    );
    acceptor.recheck();
    timeout(PATIENCE, server_b.connection().ended()).await.unwrap();
    assert!(server_a.connection().stands());
    let (_client, again) = meet(&a, &acceptor).await.unwrap();
    assert!(again.connection().is_resumed());
}

#[tokio::test]
async fn a_server_is_known_by_its_spiffe_id() {
    let scene = Scene::new();
    let root = Ca::new("mesh");
    let server = |id: &str| {
        let mut params = leaf_params("another name");
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id).unwrap())];
        let identity = identity(&root.leaf_with(params));
        server_config(&identity)
            .require_client(&scene.anchors)
            .acceptor()
            .unwrap()
    };
    let builder = client_config(&anchors_in(&ca_dir(&[("s1", &root)]))).identity(&identity_of(&scene.c1));
    let connector = builder
        .clone()
        .spiffe(|id| id == "spiffe://mesh.test/db")
        .connector()
        .unwrap();
    let (client, _) = meet(&connector, &server("spiffe://mesh.test/db")).await.unwrap();
    let peer = client.connection().peer().unwrap();
    assert_eq!(peer.spiffe_id().as_deref(), Some("spiffe://mesh.test/db"));
    for other in ["spiffe://mesh.test/web", "https://mesh.test/db"] {
        assert!(meet(&connector, &server(other)).await.is_err(), "{other}");
    }
    let by_name = builder.connector().unwrap();
    assert!(
        meet(&by_name, &server("spiffe://mesh.test/db")).await.is_err(),
        "the control"
    );
}

#[tokio::test]
async fn nothing_is_left_when_an_acceptor_has_gone() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let scene = Scene::new();
    let (acceptor, connector) = (acceptor(&scene, WAYS[0]), connector(&scene, &scene.c1, WAYS[0]));
    let ends = meet(&connector, &acceptor).await.unwrap();
    assert_eq!(
        tasks(),
        before + 2,
        "one for each side, whatever the number of connections"
    );
    drop((ends, acceptor, connector));
    while tasks() > before {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn clients_without_a_certificate_rest_on_our_identity_alone() {
    let scene = Scene::new();
    let optional: TrustAnchors = scene.anchors.clone();
    let connector = client_config(&scene.server_ca).connector().unwrap();
    for builder in [
        server_config(&scene.server_identity).optional_client(&optional),
        server_config(&scene.server_identity).no_client(),
    ] {
        let acceptor = builder.acceptor().unwrap();
        let (client, server) = meet(&connector, &acceptor).await.unwrap();
        assert!(server.connection().peer().is_none() && client.connection().identity().is_none());
        scene.remove_c1();
        assert!(server.connection().stands());
    }
}
