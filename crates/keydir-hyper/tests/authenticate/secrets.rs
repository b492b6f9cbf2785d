//! No secret stands in what anything here prints, whatever happens to it.

use std::fmt::Debug;
use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use keydir_hyper::AuthenticateLayer;
use tower::{Service, ServiceExt};

use crate::support::{Hello, behind, request, tokens};

const TOKEN: &str = "canary-of-a-token-51c0de7a";
const WRONG: &str = "canary-of-a-wrong-one-9a11e7";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Serves a request and prints all that can be printed around it.
async fn trial(log: &mut Log, layer: &AuthenticateLayer, headers: &[(&str, &str)]) {
    let mut service = behind(layer);
    let service: &mut keydir_hyper::Authenticate<Hello> =
        ServiceExt::<Request<String>>::ready(&mut service).await.unwrap();
    let future = service.call(request(headers));
    writeln!(log, "{layer:?} {service:?} {future:?}").unwrap();
    let response = future.await.unwrap();
    writeln!(log, "{response:?}").unwrap();
}

fn print(log: &mut Log, values: &[&dyn Debug]) {
    values.iter().for_each(|value| writeln!(log, "{value:?}").unwrap());
}

#[tokio::test]
async fn no_byte_of_a_secret_stands_in_any_output() {
    let mut log = Log::default();
    let events = log.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
    subscriber.with_writer(move || events.clone()).init();

    let too_long = TOKEN.repeat(1000);
    let bad = format!("{TOKEN}\u{1}");
    let (dir, tokens) = tokens(&[("r1.token", TOKEN), ("bad.token", &bad), ("long.token", &too_long)]);
    let key = tokens.verify(TOKEN.as_bytes()).unwrap();
    print(
        &mut log,
        &[&tokens, &tokens.live().snapshot(), &tokens.live().load().problems()],
    );
    print(
        &mut log,
        &[&key, &**key, tokens.live().load().whole(), tokens.live().view()],
    );
    let layer = AuthenticateLayer::bearer(&tokens).or(AuthenticateLayer::header("x-api-key".parse().unwrap(), &tokens));
    for headers in [
        &[("authorization", format!("Bearer {TOKEN}"))][..],
        &[
            ("x-api-key", TOKEN.to_owned()),
            ("authorization", format!("Bearer {WRONG}")),
        ],
        &[("authorization", format!("Bearer {WRONG}"))],
        &[
            ("authorization", format!("Bearer {TOKEN}")),
            ("authorization", format!("Bearer {WRONG}")),
        ],
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        trial(&mut log, &layer, &headers).await;
    }
    #[cfg(feature = "password-hash")]
    let hash = passwords(&mut log).await;
    #[cfg(not(feature = "password-hash"))]
    let hash = TOKEN.to_owned();
    let report = serde_json::to_string(&keydir::report()).unwrap();
    print(&mut log, &[&dir, &report]);

    let printed = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    for secret in [TOKEN, WRONG, &hash] {
        for needle in [&secret[7..17], &STANDARD.encode(secret)[4..16]] {
            assert!(!printed.contains(needle), "{needle} was printed:\n{printed}");
        }
    }
    // What would be found, and the events that were waited for.
    for control in [
        "subject: \"bad\"",
        "too-long",
        "request refused",
        "Sensitive",
        "AcceptedToken",
    ] {
        assert!(printed.contains(control), "{control} was not printed:\n{printed}");
    }
}

#[cfg(feature = "password-hash")]
async fn passwords(log: &mut Log) -> String {
    use crate::support::passwords::{QUICK, basic, hash, passwords};

    let hash = hash(TOKEN, QUICK);
    let (dir, passwords) = passwords(&[("r1", "ali", TOKEN, QUICK)]);
    let key = passwords.verify("ali", TOKEN.as_bytes()).await.unwrap().unwrap();
    print(
        log,
        &[
            &passwords,
            &passwords.live().snapshot(),
            &key,
            &*key,
            &keydir_hyper::Busy,
        ],
    );
    print(log, &[passwords.live().load().whole(), passwords.live().view()]);
    let busy = passwords.clone().with_limits(1, 0);
    for (passwords, password) in [(&passwords, TOKEN), (&passwords, WRONG), (&busy, WRONG)] {
        let login = basic("ali", password);
        let layer = AuthenticateLayer::basic(passwords);
        trial(log, &layer, &[("authorization", &login)]).await;
    }
    // A password in the place of its hash.
    dir.publish([
        ("ali.password-hash", format!("${TOKEN}")),
        ("bob.password-hash", TOKEN.to_owned()),
    ])
    .unwrap();
    print(log, &[&passwords.live().load().problems()]);
    hash.rsplit('$').next().unwrap().to_owned()
}
