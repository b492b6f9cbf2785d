//! Bearer tokens and passwords. The client's layer is over a plain pool, and the server's inside a plain server, which
//! says what each request has presented. A plain client goes on with what was removed, and must not be served.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, AuthorizationLayer, BoxError, Token, Tokens};
use tower::util::{BoxCloneSyncService, MapRequestLayer};
use tower::{Layer, ServiceExt};

use crate::load::{ALPN, Counts, FLOOR, Load, TRIES, rotations, rotations_of_a_control, until};
use crate::pki::{Ca, Files, plain_client, plain_server};
use crate::plain_client::{Body, Pool, get, pool, send};
use crate::plain_server::{Seen, Server, Service, answering};

/// One kind of credential, whose revisions are numbers.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    /// The files of a revision at each end; the client's first one bears the mark.
    client: fn(u64) -> Files,
    server: fn(u64) -> Files,
    presents: fn(&Dir) -> AuthorizationLayer,
    accepts: fn(&Dir) -> AuthenticateLayer,
    /// What the client presents, and back.
    header: fn(u64) -> String,
}

impl Kind {
    /// Of several, the first is the primary.
    fn client_files(&self, revisions: &[u64]) -> Files {
        let mut files: Files = revisions.iter().flat_map(|n| (self.client)(*n)).collect();
        files[0].0.push_str(".primary");
        files
    }

    fn server_files(&self, revisions: &[u64]) -> Files {
        revisions.iter().flat_map(|n| (self.server)(*n)).collect()
    }
}

fn token(n: u64) -> String {
    format!("token-of-{n}")
}

fn accepts_tokens(dir: &Dir) -> AuthenticateLayer {
    AuthenticateLayer::bearer(&Tokens::in_dir(dir).unwrap())
}

const BEARER: Kind = Kind {
    name: "bearer tokens",
    client: |n| vec![(format!("r{n}.token"), token(n))],
    server: |n| vec![(format!("r{n}.token"), token(n))],
    presents: |dir| AuthorizationLayer::bearer(&Token::in_dir(dir).unwrap()).any_origin(),
    accepts: accepts_tokens,
    header: |n| format!("Bearer {}", token(n)),
};

const SHA256: Kind = Kind {
    name: "bearer tokens, kept by the server as token-sha256",
    server: |n| {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(token(n));
        let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        vec![(format!("r{n}.token-sha256"), hex)]
    },
    ..BEARER
};

#[cfg(feature = "password-hash")]
const BASIC: Kind = {
    use argon2::{Argon2, Params, PasswordHasher};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn user(n: u64) -> (String, String) {
        (format!("r{n}.username"), "ali".to_owned())
    }

    Kind {
        name: "Basic logins, kept by the server as password-hash",
        client: |n| vec![user(n), (format!("r{n}.password"), token(n))],
        server: |n| {
            let argon2 = Argon2::from(Params::new(8, 1, 1, None).unwrap());
            let hash = argon2.hash_password_with_salt(token(n).as_bytes(), b"16 bytes of salt");
            vec![user(n), (format!("r{n}.password-hash"), hash.unwrap().to_string())]
        },
        presents: |dir| AuthorizationLayer::basic(&keydir_hyper::Login::in_dir(dir).unwrap()).any_origin(),
        accepts: |dir| AuthenticateLayer::basic(&keydir_hyper::Passwords::in_dir(dir).unwrap()),
        header: |n| format!("Basic {}", STANDARD.encode(format!("ali:{}", token(n)))),
    }
};

/// What is done otherwise than it should be.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Right,
    /// The client goes on with what it has read at its start.
    ClientKeeps,
    /// The server remembers what it has let in.
    ServerRemembers,
    /// The server removes a revision that the client still presents.
    RemovedFirst,
}

struct Outcome {
    counts: Counts,
    seen: Arc<Seen>,
    /// With what was removed, by somebody who has kept it: tries, and those of them that were served.
    tries: usize,
    served: usize,
}

type Client = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

async fn rotate(kind: Kind, alpn: &str, rotations: u64, way: Way) -> Outcome {
    let ca = Ca::new("the ca");
    let (ends, accepted) = (
        Dir::in_memory(kind.client_files(&[1])),
        Dir::in_memory(kind.server_files(&[1])),
    );
    let served = Arc::<AtomicUsize>::default();
    let guarded = Service::new((kind.accepts)(&accepted).layer(answering(&served)));
    let guarded = match way {
        Way::ServerRemembers => remembering(guarded, answering(&served)),
        _ => guarded,
    };
    let server = Server::start(
        plain_server(&ca.leaf(1), None),
        alpn,
        |request, _| presented(request),
        guarded,
    )
    .await;
    let address = server.address;
    let plain = pool(&Arc::new(plain_client(&ca, None, alpn)), address);
    let client = match way {
        Way::ClientKeeps => keeping((kind.header)(1), &plain),
        _ => Client::new((kind.presents)(&ends).layer(plain.clone())),
    };
    let load = Load::start(move |floor| {
        let client = client.clone();
        async move { send(client, get(address, floor)).await.map(|_| None) }
    });
    load.step().await;
    let (mut tries, mut let_in) = (0, 0);
    for n in 1..=rotations {
        let (old, new) = (n, n + 1);
        accepted.publish(kind.server_files(&[old, new])).unwrap();
        ends.publish(kind.client_files(&[old, new])).unwrap();
        load.step().await;
        if way == Way::RemovedFirst {
            accepted.publish(kind.server_files(&[new])).unwrap();
            load.step().await;
        }
        ends.publish(kind.client_files(&[new, old])).unwrap();
        // What the report is for.
        until("nothing is under way with it", || {
            ends.report().sets.iter().all(|set| set.uses(&format!("r{old}")) == 0)
        })
        .await;
        ends.publish(kind.client_files(&[new])).unwrap();
        load.removed_before(new);
        load.step().await;
        accepted.publish(kind.server_files(&[new])).unwrap();
        for _ in 0..TRIES {
            let mut request = get(address, 0);
            request.headers_mut().remove(FLOOR);
            request
                .headers_mut()
                .insert(AUTHORIZATION, (kind.header)(old).parse().unwrap());
            match send(plain.clone(), request).await {
                Ok(_) => let_in += 1,
                Err(status) => assert_eq!(status, "401"),
            }
            tries += 1;
        }
        load.step().await;
    }
    let counts = load.end().await;
    let seen = Arc::clone(&server.seen);
    // What fails has failed by its answer.
    assert_eq!(
        seen.requests.load(SeqCst),
        counts.ok + counts.failed,
        "both sides count the same"
    );
    assert_eq!(served.load(SeqCst), counts.ok + let_in, "both sides count the same");
    Outcome {
        counts,
        seen,
        tries,
        served: let_in,
    }
}

/// The revision whose credential a request has.
fn presented(request: &Request<Incoming>) -> u64 {
    let header = request.headers()[AUTHORIZATION].to_str().unwrap();
    let number = |text: &str| text.rsplit('-').next().unwrap().parse().unwrap();
    match header.strip_prefix("Basic ") {
        None => number(header),
        Some(encoded) => {
            use base64::Engine;
            let login = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
            number(std::str::from_utf8(&login).unwrap())
        }
    }
}

/// Presents always the same.
fn keeping(header: String, plain: &Pool) -> Client {
    let header = HeaderValue::try_from(header).unwrap();
    let layer = MapRequestLayer::new(move |mut request: Request<Body>| {
        request.headers_mut().insert(AUTHORIZATION, header.clone());
        request
    });
    Client::new(layer.layer(plain.clone()).map_err(BoxError::from))
}

/// Asks the layer once for each credential.
fn remembering(guarded: Service, inner: Service) -> Service {
    let known = Arc::<Mutex<HashSet<HeaderValue>>>::default();
    Service::new(tower::service_fn(move |request: Request<Incoming>| {
        let header = request.headers()[AUTHORIZATION].clone();
        let (known, guarded, inner) = (Arc::clone(&known), guarded.clone(), inner.clone());
        async move {
            if known.lock().unwrap().contains(&header) {
                return inner.oneshot(request).await;
            }
            let answer: Response<Full<Bytes>> = guarded.oneshot(request).await?;
            if answer.status() == 200 {
                known.lock().unwrap().insert(header);
            }
            Ok(answer)
        }
    }))
}

async fn prove(kind: Kind) {
    for alpn in ALPN {
        let Outcome {
            counts,
            seen,
            tries,
            served,
        } = rotate(kind, alpn, rotations(), Way::Right).await;
        let on_removed = seen.on_removed.load(SeqCst);
        println!(
            "{}, {alpn}, {} rotations: {counts}, {on_removed} with what was removed; {served} of {tries} with what was \
             kept let in",
            kind.name,
            rotations()
        );
        assert_eq!((counts.failed, on_removed, served), (0, 0, 0), "{:?}", counts.errors);

        let control = async |way| rotate(kind, alpn, rotations_of_a_control(), way).await;
        let Outcome { counts, seen, .. } = control(Way::ClientKeeps).await;
        let on_removed = seen.on_removed.load(SeqCst);
        println!("- a client that keeps it: {counts}, {on_removed} with what was removed");
        assert!(counts.failed > 0 && on_removed > 0, "{counts}");

        let Outcome { tries, served, .. } = control(Way::ServerRemembers).await;
        println!("- a server that remembers: {served} of {tries} with what was kept let in");
        assert_eq!(served, tries);

        let Outcome { counts, .. } = control(Way::RemovedFirst).await;
        println!("- removed before it is promoted: {counts}");
        assert!(counts.failed > 0, "{counts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bearer_tokens() {
    prove(BEARER).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bearer_tokens_of_which_the_server_has_the_digest() {
    prove(SHA256).await;
}

#[cfg(feature = "password-hash")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_of_which_the_server_has_the_hash() {
    prove(BASIC).await;
}
