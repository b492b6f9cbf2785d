//! The CA that the server trusts for clients. The clients are plain ones, which move first, and say whether a request
//! with a leaf of what was removed was served: on a connection that is open, or by a handshake.

use std::collections::BTreeMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use keydir::Dir;
use keydir_hyper::Server;
use keydir_rustls::{Identity, ServerBuilder, TrustAnchors, server_config};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::load::{ALPN, Counts, Load, TRIES, rotations, rotations_of_a_control};
use crate::pki::{Ca, Leaf, plain_client};
use crate::plain_client::{get, pool, send};
use crate::plain_server::{self, answering};

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Right,
    /// The same config, whose verifier follows, behind a plain server.
    PlainServer,
    /// Removed before the clients have moved.
    RemovedFirst,
}

struct Outcome {
    counts: Counts,
    /// Of clients with a leaf of the CA that was removed: how many requests were served, and what became of the others.
    served: usize,
    refused: BTreeMap<String, usize>,
}

async fn rotate(alpn: &str, rotations: u64, way: Way) -> Outcome {
    let servers = Ca::new("servers");
    let mut ca = Ca::new("ca 1");
    let dir = Dir::in_memory(Ca::files(&[(1, &ca)]));
    let own = Dir::in_memory(Leaf::files(&[(1, &servers.leaf(1))]));
    let tls = server_config(&Identity::in_dir(&own).unwrap()).require_client(&TrustAnchors::in_dir(&dir).unwrap());
    let answered = Arc::default();
    let (address, _plain) = start(tls, alpn, way, &answered).await;

    let config = |ca: &Ca, n| Arc::new(plain_client(&servers, Some(&ca.leaf(n)), alpn));
    let mut old = config(&ca, 1);
    let current = Arc::new(Mutex::new((1, pool(&old, address))));
    let asking = Arc::clone(&current);
    let load = Load::start(move |floor| {
        let (revision, client) = asking.lock().unwrap().clone();
        async move { send(client, get(address, floor)).await.map(|_| Some(revision)) }
    });
    load.step().await;
    let (mut served, mut refused) = (0, BTreeMap::new());
    for n in 1..=rotations {
        let next = Ca::new(&format!("ca {}", n + 1));
        let new = config(&next, n + 1);
        if way == Way::RemovedFirst {
            dir.publish(Ca::files(&[(n + 1, &next)])).unwrap();
        } else {
            dir.publish(Ca::files(&[(n, &ca), (n + 1, &next)])).unwrap();
        }
        load.step().await;
        let (_, left) = mem::replace(&mut *current.lock().unwrap(), (n + 1, pool(&new, address)));
        load.settled().await;
        load.step().await;
        dir.publish(Ca::files(&[(n + 1, &next)])).unwrap();
        load.removed_before(n + 1);
        // On connections that are open, and then by handshakes, for which there are sessions to resume.
        for left in [left, pool(&old, address)] {
            let mut tries = JoinSet::new();
            for _ in 0..TRIES {
                tries.spawn(send(left.clone(), get(address, 0)));
            }
            for answer in tries.join_all().await {
                match answer {
                    Ok(_) => served += 1,
                    Err(error) => *refused.entry(error).or_insert(0) += 1,
                }
            }
        }
        old = new;
        load.step().await;
        ca = next;
    }
    let counts = load.end().await;
    assert_eq!(answered.load(SeqCst), counts.ok + served, "both sides count the same");
    Outcome {
        counts,
        served,
        refused,
    }
}

async fn start(
    tls: ServerBuilder,
    alpn: &str,
    way: Way,
    answered: &Arc<AtomicUsize>,
) -> (SocketAddr, Option<plain_server::Server>) {
    let service = answering(answered);
    if way == Way::PlainServer {
        let server = plain_server::Server::start(tls.build().unwrap(), alpn, |_, _| u64::MAX, service).await;
        return (server.address, Some(server));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.alpn([alpn]).acceptor().unwrap();
    tokio::spawn(Server::new(acceptor).serve(listener, service));
    (address, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ca_that_the_server_trusts() {
    for alpn in ALPN {
        let Outcome {
            counts,
            served,
            refused,
        } = rotate(alpn, rotations(), Way::Right).await;
        let on_open_ones = refused.get("421").copied().unwrap_or_default();
        let tries = served + refused.values().sum::<usize>();
        println!(
            "the CA that a server trusts, {alpn}, {} rotations: {counts}, {} on what was removed; {served} of {tries} \
             of removed clients served; {on_open_ones} of these were on connections that were open",
            rotations(),
            counts.on_removed
        );
        assert_eq!(
            (counts.failed, counts.on_removed, served),
            (0, 0, 0),
            "{:?}",
            counts.errors
        );
        assert!(on_open_ones > 0, "{refused:?}");

        let few = rotations_of_a_control();
        let Outcome { served, refused, .. } = rotate(alpn, few, Way::PlainServer).await;
        let tries = served + refused.values().sum::<usize>();
        println!("- a plain server with a verifier that follows: {served} of {tries} of removed clients served");
        assert!(served > 0);

        let Outcome { counts, .. } = rotate(alpn, few, Way::RemovedFirst).await;
        println!("- removed before the clients move: {counts}");
        assert!(counts.failed > 0, "{counts}");
    }
}
