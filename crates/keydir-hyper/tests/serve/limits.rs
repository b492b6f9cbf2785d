//! Clients that only take room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, Tokens};
use keydir_rustls::rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::Layer;
use tower::util::BoxCloneService;

use crate::client::{get, get1, h1, h2, pool, text, tls};
use crate::scene::{Held, LONG, Scene, Seen, about, eventually, soon, start};

/// Clients that come as far as this, and no further.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stops {
    BeforeTheHandshake,
    InTheHandshake,
    AfterTheHandshake(&'static str),
    InTheHead,
    InThePreface,
    AfterThePreface,
}

pub(crate) const STOPS: [Stops; 7] = [
    Stops::BeforeTheHandshake,
    Stops::InTheHandshake,
    Stops::AfterTheHandshake("http/1.1"),
    Stops::AfterTheHandshake("h2"),
    Stops::InTheHead,
    Stops::InThePreface,
    Stops::AfterThePreface,
];

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(crate) async fn until_closed(mut io: impl AsyncRead + Unpin) {
    let mut bytes = [0; 1024];
    while matches!(io.read(&mut bytes).await, Ok(1..)) {}
}

/// Comes so far, and resolves when the server has closed the connection.
pub(crate) async fn stop(stops: Stops, config: [Arc<ClientConfig>; 2], address: std::net::SocketAddr) {
    let [one, two] = config;
    let said = |config: Arc<ClientConfig>, bytes: &'static [u8]| async move {
        let mut io = tls(&config, address).await.unwrap();
        // The server may have closed it already.
        if io.write_all(bytes).await.is_ok() && io.flush().await.is_ok() {
            until_closed(io).await;
        }
    };
    match stops {
        Stops::BeforeTheHandshake => until_closed(TcpStream::connect(address).await.unwrap()).await,
        Stops::InTheHandshake => {
            let mut tcp = TcpStream::connect(address).await.unwrap();
            // The head of a record that is longer than what follows.
            if tcp.write_all(&[22, 3, 1, 1, 0, 1, 0]).await.is_ok() {
                until_closed(tcp).await;
            }
        }
        Stops::AfterTheHandshake("h2") => said(two, b"").await,
        Stops::AfterTheHandshake(_) => said(one, b"").await,
        Stops::InTheHead => said(one, b"GET / HTTP/1.1\r\nhost: loc").await,
        Stops::InThePreface => said(two, &PREFACE[..10]).await,
        Stops::AfterThePreface => said(two, PREFACE).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_that_stop_are_closed_and_keep_nobody_waiting() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let acceptor = scene.acceptor(LONG).with_timeout(Duration::from_secs(3));
    let server = start(&acceptor, about(&seen), |server| {
        server.header_timeout(Duration::from_secs(3))
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let configs = [config("http/1.1"), config("h2")];
    let done = Arc::new(AtomicBool::new(false));

    // The load: new connections and pooled ones.
    let served = |config: Arc<ClientConfig>| {
        let (done, address) = (Arc::clone(&done), server.address);
        tokio::spawn(async move {
            let mut requests = 0;
            while !done.load(Ordering::SeqCst) {
                let client = pool(&config, address);
                for _ in 0..10 {
                    let response = soon(client.request(get("/"))).await.unwrap();
                    assert_eq!(text(response).await, "r1 c1");
                    requests += 1;
                }
            }
            requests
        })
    };
    let load = [served(config("http/1.1")), served(config("h2"))];
    let stopping: Vec<_> = (0..1000)
        .map(|n| tokio::spawn(stop(STOPS[n % STOPS.len()], configs.clone(), server.address)))
        .collect();
    for client in stopping {
        soon(client).await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut requests = 0;
    for load in load {
        requests += soon(load).await.unwrap();
    }
    assert_eq!(
        seen.requests(),
        requests,
        "none was lost, and the others have asked for nothing"
    );
    eventually("no connection is left", || acceptor.connections() == 0).await;
}

/// With a header timeout that never comes, each of them stays: so it is the timeout that closes them.
#[tokio::test]
async fn it_is_the_header_timeout_that_closes_them() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let configs = [config("http/1.1"), config("h2")];
    for stops in &STOPS[2..] {
        let run = async |timeout| {
            let server = start(&scene.acceptor(LONG), about(&seen), |server| {
                server.header_timeout(timeout)
            })
            .await;
            let client = stop(*stops, configs.clone(), server.address);
            tokio::time::timeout(Duration::from_secs(2), client).await
        };
        assert!(run(LONG).await.is_err(), "{stops:?}");
        assert!(run(Duration::from_millis(100)).await.is_ok(), "{stops:?}");
    }
}

#[tokio::test]
async fn an_idle_http1_connection_ends_and_one_of_http2_stays() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| {
        server.header_timeout(Duration::from_millis(200))
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let mut two = h2(&config("h2"), server.address).await;
    text(soon(two.send.send_request(get("/"))).await.unwrap()).await;
    let mut one = h1(&config("http/1.1"), server.address).await;
    text(soon(one.send.send_request(get1("/"))).await.unwrap()).await;
    let _ = soon(one.end).await.unwrap();
    assert_eq!(
        text(soon(two.send.send_request(get("/"))).await.unwrap()).await,
        "r1 c1"
    );
}

#[tokio::test]
async fn handshakes_beyond_the_limit_are_dropped_and_the_pending_ones_go_on() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let acceptor = scene.acceptor(LONG).with_timeout(LONG);
    let server = start(&acceptor, about(&seen), |server| server.max_handshakes(2)).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let mut first = TcpStream::connect(server.address).await.unwrap();
    let _second = TcpStream::connect(server.address).await.unwrap();
    let mut refused = TcpStream::connect(server.address).await.unwrap();
    let closed = soon(refused.read(&mut [0])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");

    // Whoever gives up makes room.
    first.shutdown().await.unwrap();
    drop(first);
    loop {
        match tls(&config, server.address).await {
            Ok(_) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server.max_connections(2)).await;
    let config = scene.client(&scene.c1, &["http/1.1"]);
    let (mut first, _second) = (h1(&config, server.address).await, h1(&config, server.address).await);
    let mut third = tokio::spawn({
        let (config, address) = (Arc::clone(&config), server.address);
        async move { h1(&config, address).await }
    });
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut third).await;
    assert!(waited.is_err());
    let response = soon(first.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(text(response).await, "r1 c1");
    drop(first);
    let mut third = soon(third).await.unwrap();
    let response = soon(third.send.send_request(get1("/"))).await.unwrap();
    assert_eq!(text(response).await, "r1 c1");
}

/// A request that crosses the GOAWAY is served to its end, also if that takes longer than the client has to go.
#[tokio::test]
async fn a_request_that_crosses_the_end_of_the_header_timeout_is_answered() {
    let scene = Scene::new();
    let held = Held::new();
    let server = start(&scene.acceptor(LONG), held.service(), |server| {
        server.header_timeout(Duration::from_millis(200))
    })
    .await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let configs = [config("http/1.1"), config("h2")];
    let mut asks = tls(&configs[1], server.address).await.unwrap();
    asks.write_all(PREFACE).await.unwrap();
    while soon(frame(&mut asks)).await.0 != GOAWAY {}
    asks.write_all(GET).await.unwrap();
    held.started(1).await;
    // This one has come later, and is gone.
    soon(stop(Stops::AfterThePreface, configs, server.address)).await;
    held.go(1);
    while soon(frame(&mut asks)).await != (HEADERS, 1) {}
}

/// Heads that are too large, or none at all, are refused, by an answer that arrives, and cost nobody else anything.
#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_giant_doubled_or_no_text_are_refused() {
    let scene = Scene::new();
    let tokens = Tokens::in_dir(&Dir::in_memory([("r1.token", "correct-horse")])).unwrap();
    let seen = Arc::new(Seen::default());
    let service = BoxCloneService::new(AuthenticateLayer::bearer(&tokens).layer(about(&seen)));
    let server = start(&scene.acceptor(LONG), service, |server| server).await;
    let config = |alpn| scene.client(&scene.c1, &[alpn]);
    let [one, two] = [config("http/1.1"), config("h2")];

    let line = |value: &[u8]| [b"authorization: Bearer ", value, b"\r\n"].concat();
    for (expected, lines) in [
        ("200", line(b"correct-horse")),
        ("400", line(b"correct-horse").repeat(2)),
        ("401", line(&[b'x'; 100 * 1024])),
        ("401", line(b"\xff\xfe\x80")),
        ("431", line(&[b'x'; 1024 * 1024])),
        ("431", b"x-filler: x\r\n".repeat(1000)),
        ("400", line(b"correct\0horse")),
        ("400", line(b"correct\rhorse")),
        ("400", b"\xff\xfe: x\r\n".to_vec()),
    ] {
        let mut io = tls(&one, server.address).await.unwrap();
        let head = [
            b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n",
            &*lines,
            b"\r\n",
        ]
        .concat();
        let mut answer = Vec::new();
        let what = lines.get(..40.min(lines.len())).unwrap().escape_ascii();
        // The server may stop reading before the end of it.
        let _ = soon(io.write_all(&head)).await;
        soon(io.read_to_end(&mut answer))
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{what}: {answer}");
    }

    let mut client = h2(&two, server.address).await;
    for (expected, values) in [
        (200, vec![b"Bearer correct-horse".to_vec()]),
        (400, vec![b"Bearer correct-horse".to_vec(); 2]),
        (401, vec![b"Bearer \xff\xfe\x80".to_vec()]),
        (431, vec![vec![b'x'; 20 * 1024]]),
        (200, vec![b"Bearer correct-horse".to_vec()]),
    ] {
        let mut request = get("/");
        for value in values {
            let value = value.try_into().unwrap();
            request.headers_mut().append("authorization", value);
        }
        let answer = soon(client.send.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), expected);
        text(answer).await;
    }
    // That is no request any more, and ends the connection.
    let mut request = get("/");
    let value = vec![b'x'; 1024 * 1024].try_into().unwrap();
    request.headers_mut().append("authorization", value);
    assert!(soon(client.send.send_request(request)).await.is_err());
    assert!(soon(client.end).await.unwrap().is_err());
    assert_eq!(seen.requests(), 3);
}

/// They cost the others nothing, and end when their CA is removed, each in order.
#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_connections_are_idle() {
    const IDLE: usize = 1000;
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let acceptor = scene.acceptor(Duration::from_secs(10));
    let server = start(&acceptor, about(&seen), |server| server.header_timeout(LONG)).await;
    let config = |ca, alpn| scene.client(ca, &[alpn]);
    let idle = [config(&scene.c1, "http/1.1"), config(&scene.c1, "h2")];
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for _ in 0..IDLE {
        let mut one = h1(&idle[0], server.address).await;
        text(soon(one.send.send_request(get1("/"))).await.unwrap()).await;
        ones.push(one);
        let mut two = h2(&idle[1], server.address).await;
        text(soon(two.send.send_request(get("/"))).await.unwrap()).await;
        twos.push(two);
    }
    assert_eq!((acceptor.connections(), scene.uses("r1")), (2 * IDLE, 2 * IDLE));

    let done = Arc::new(AtomicBool::new(false));
    let load = ["http/1.1", "h2"].map(|alpn| {
        let (client, done) = (pool(&config(&scene.c2, alpn), server.address), Arc::clone(&done));
        tokio::spawn(async move {
            let mut requests = 0;
            while !done.load(Ordering::SeqCst) {
                let response = soon(client.request(get("/"))).await.unwrap();
                assert_eq!(text(response).await, "r1 c2");
                requests += 1;
            }
            requests
        })
    });
    scene.remove_c1();
    for end in ones
        .iter_mut()
        .map(|one| &mut one.end)
        .chain(twos.iter_mut().map(|two| &mut two.end))
    {
        soon(end).await.unwrap().unwrap();
    }
    eventually("those that are in use are left", || {
        acceptor.connections() == load.len()
    })
    .await;
    done.store(true, Ordering::SeqCst);
    let mut requests = 2 * IDLE;
    for load in load {
        requests += soon(load).await.unwrap();
    }
    assert_eq!(seen.requests(), requests, "none was lost");
}

const HEADERS: u8 = 1;
const GOAWAY: u8 = 7;

/// The whole of a request, as stream 1: GET https://localhost/
const GET: &[u8] = b"\0\0\x0e\x01\x05\0\0\0\x01\x82\x87\x84\x41\x09localhost";

/// The type and the stream of the next frame.
async fn frame(io: &mut (impl AsyncRead + Unpin)) -> (u8, u32) {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.unwrap();
    let [a, b, c, kind, _, stream @ ..] = head;
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
    io.read_exact(&mut payload).await.unwrap();
    (kind, u32::from_be_bytes(stream))
}
