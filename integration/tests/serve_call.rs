//! `serve` and `call` as two processes, while what they present and trust changes under them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::Arc;

use keydir_integration::{
    Ca, Call, Connection, KeyDir, Leaf, PlainClient, Program, Serve, Version, eventually, example,
};
use keydir_rustls::rustls::RootCertStore;
use keydir_rustls::rustls::crypto::aws_lc_rs::default_provider;
use keydir_rustls::rustls::pki_types::UnixTime;
use keydir_rustls::rustls::server::WebPkiClientVerifier;
use rustix::process::Signal;
use serde_json::{Value, json};

fn arg(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

/// A new connection with a full handshake.
fn fresh(serve: &Serve, roots: &[&Ca], leaf: Option<&Leaf>) -> PlainClient {
    PlainClient::new(serve.port, roots, leaf, Version::Tls13)
}

fn revision(serve: &Serve, roots: &[&Ca]) -> Value {
    let answer = fresh(serve, roots, None).json();
    answer.map_or(Value::Null, |json| json["revision"].clone())
}

#[test]
fn the_certificate_changes_without_a_restart_and_a_connection_keeps_its_own() {
    let ca = Ca::new("servers");
    let mut identity = KeyDir::identity("r1", &ca.leaf("one"));
    let serve = Serve::start(identity.path(), &[]);
    let mut kept = fresh(&serve, &[&ca], None).connect().unwrap();
    let expected = json!({"revision": "r1", "client": null, "resumed": false});
    assert_eq!(kept.get().unwrap().json, expected);

    let second = ca.leaf("two");
    identity.add([("r2.crt", &second.crt), ("r2.key", &second.key)]);
    identity.promote("r2");
    eventually("r2 is presented", || revision(&serve, &[&ca]) == "r2");
    identity.remove("r1");
    // The connection from before goes on, and says what its own handshake was.
    assert_eq!(kept.get().unwrap().json, expected);
    assert_eq!(revision(&serve, &[&ca]), "r2");
    serve.stop();
}

#[test]
fn the_answer_names_client_and_ca_and_whether_it_resumed() {
    let (servers, c1) = (Ca::new("servers"), Ca::new("clients 1"));
    let identity = KeyDir::identity("r1", &servers.leaf("server"));
    let cas = KeyDir::cas(&[("c1", &c1)]);
    let leaf = c1.leaf("Doe, Jane");
    for version in [Version::Tls12, Version::Tls13] {
        for tickets in [&[][..], &["--tickets"]] {
            let arguments = [&["--clients", arg(cas.path())], tickets].concat();
            let serve = Serve::start(identity.path(), &arguments);
            let client = PlainClient::new(serve.port, &[&servers], Some(&leaf), version);
            let mut expected = json!({
                "revision": "r1", "client": {"subject": "CN=Doe\\, Jane", "ca": "c1"}, "resumed": false
            });
            assert_eq!(client.json(), Some(expected.clone()), "{version:?} {tickets:?}");
            expected["resumed"] = true.into();
            assert_eq!(client.json(), Some(expected), "{version:?} {tickets:?}");
            serve.stop();
        }
    }
}

#[test]
fn clients_are_asked_as_the_options_say() {
    let (servers, c1, other) = (Ca::new("servers"), Ca::new("clients 1"), Ca::new("others"));
    let identity = KeyDir::identity("r1", &servers.leaf("server"));
    let cas = KeyDir::cas(&[("c1", &c1)]);
    let (good, bad) = (c1.leaf("good"), other.leaf("bad"));
    let clients = ["--clients", arg(cas.path())];
    let optional = [&clients[..], &["--optional"]].concat();
    // Without a certificate, with a good one, with one of another CA: what is the client called, if it is let in?
    let anonymous = Some(Value::Null);
    let named = Some(json!({"subject": "CN=good", "ca": "c1"}));
    for (arguments, expected) in [
        (&[][..], [anonymous.clone(), anonymous.clone(), anonymous.clone()]),
        (&clients, [None, named.clone(), None]),
        (&optional, [anonymous, named, None]),
    ] {
        let serve = Serve::start(identity.path(), arguments);
        let found = [None, Some(&good), Some(&bad)].map(|leaf| {
            let answer = fresh(&serve, &[&servers], leaf).json();
            answer.map(|json| json["client"].clone())
        });
        assert_eq!(found, expected, "{arguments:?}");
        serve.stop();
    }
}

#[test]
fn a_complete_rotation_of_the_ca_between_two_processes() {
    let (c1, c2) = (Ca::new("CA 1"), Ca::new("CA 2"));
    let (server_1, client_1) = (c1.leaf("server"), c1.leaf("client"));
    let (server_2, client_2) = (c2.leaf("server"), c2.leaf("client"));
    let mut cas = KeyDir::cas(&[("c1", &c1)]);
    let mut server = KeyDir::identity("s1", &server_1);
    let mut client = KeyDir::identity("r1", &client_1);
    let serve = Serve::start(server.path(), &["--clients", arg(cas.path())]);
    let call = Call::start(
        cas.path(),
        Some(client.path()),
        &["--count", "0", "--every", "5"],
        &serve.url(),
    );
    let first = call.line();
    let expected = json!({
        "n": 1, "ok": true, "status": 200, "identity": "r1", "server_ca": "c1", "resumed": false, "error": null
    });
    assert_eq!(first, expected);
    call.until("a resumed session", |line| line["resumed"] == true);

    // Trust both, and wait until both do.
    cas.add([("c2.crt", c2.pem())]);
    call.loaded(cas.path(), 2);
    eventually("the server trusts c2", || {
        fresh(&serve, &[&c1], Some(&client_2)).json().is_some()
    });
    // Switch the leaves.
    server.add([("s2.crt", &server_2.crt), ("s2.key", &server_2.key)]);
    client.add([("r2.crt", &client_2.crt), ("r2.key", &client_2.key)]);
    client.promote("r2");
    call.until("r2 and a resumed session", |line| {
        line["identity"] == "r2" && line["resumed"] == true
    });
    // The server's own sessions say nothing of the certificate that it presents by now.
    server.promote("s2");
    eventually("s2 is presented", || {
        let answer = fresh(&serve, &[&c2], Some(&client_2)).json();
        answer.is_some_and(|json| json["revision"] == "s2")
    });
    // A client of the old CA with a session, for later.
    let intruder = PlainClient::new(serve.port, &[&c2], Some(&client_1), Version::Tls13);
    assert!(!intruder.get().unwrap().resumed);
    assert!(
        intruder.get().unwrap().resumed,
        "control: before the removal it resumes"
    );

    cas.remove("c1");
    eventually("c1 is refused", || {
        fresh(&serve, &[&c2], Some(&client_1)).get().is_err()
    });
    let line = call.until("c2 and a resumed session", |line| {
        line["server_ca"] == "c2" && line["resumed"] == true
    });
    assert_eq!(line["identity"], "r2");
    let refused = intruder.get().unwrap_err();
    assert!(refused.to_string().contains("received fatal alert"), "{refused}");

    // `call` says so too, with the whole cause and an exit code.
    let old = KeyDir::identity("r1", &client_1);
    let (lines, code) = Call::run(cas.path(), Some(old.path()), &["--count", "2"], &serve.url());
    assert_eq!(code, Some(1));
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!((&line["ok"], &line["status"]), (&json!(false), &Value::Null), "{line}");
        assert_eq!(
            (&line["identity"], &line["server_ca"]),
            (&json!("r1"), &json!("c2")),
            "{line}"
        );
        let error = line["error"].as_str().unwrap();
        assert!(
            error.starts_with("no answer: ") && error.contains("received fatal alert"),
            "{error}"
        );
    }
    drop(call);
    serve.stop();
}

/// A session of a server identity that was replaced resumes: the server trusts its own memory. What the *client* has
/// removed from its trust, it does not resume.
#[test]
fn a_client_resumes_no_session_of_a_server_whose_ca_it_has_removed() {
    let (s1, s2) = (Ca::new("servers 1"), Ca::new("servers 2"));
    let identity = KeyDir::identity("r1", &s1.leaf("server"));
    let mut trust = KeyDir::cas(&[("s1", &s1), ("s2", &s2)]);
    let serve = Serve::start(identity.path(), &[]);
    let call = Call::start(trust.path(), None, &["--count", "0", "--every", "5"], &serve.url());
    call.until("a resumed session", |line| line["resumed"] == true);
    trust.remove("s1");
    let failed = loop {
        let line = call.line();
        if line["ok"] == false {
            break line;
        }
    };
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("UnknownIssuer"), "{error}");
    for _ in 0..5 {
        assert_eq!(call.line()["ok"], false);
    }
}

#[test]
fn a_bad_publication_keeps_the_last_good_identity_and_says_why() {
    let ca = Ca::new("servers");
    let (one, two) = (ca.leaf("one"), ca.leaf("two"));
    let mut identity = KeyDir::identity("r1", &one);
    let serve = Serve::start(identity.path(), &[]);
    let good: [(&str, &str); 2] = [("r1.crt", &one.crt), ("r1.key", &one.key)];
    let half = &two.crt[..two.crt.len() / 2];
    for (id, crt, key, reason) in [
        (
            "r2",
            two.crt.as_str(),
            one.key.as_str(),
            "the private key is not the one",
        ),
        ("r3", "garbage", two.key.as_str(), "part crt: "),
        ("r4", half, two.key.as_str(), "part crt: "),
        ("r5", two.crt.as_str(), "", "part key: "),
    ] {
        let mut files: Vec<_> = good.map(|(name, content)| (name.to_owned(), content)).into();
        files.push((format!("{id}.crt.primary"), crt));
        files.push((format!("{id}.key"), key));
        identity.publish(files);
        let subject = format!("subject=\"{id}\"");
        eventually(reason, || {
            let log = serve.program.errors();
            log.lines().any(|line| line.contains(&subject) && line.contains(reason))
        });
        assert_eq!(revision(&serve, &[&ca]), "r1", "{reason}");
    }
    // Two primaries: the last good one goes on.
    let both = [
        ("r1.crt.primary", &one.crt),
        ("r1.key", &one.key),
        ("r9.crt.primary", &two.crt),
        ("r9.key", &two.key),
    ];
    identity.publish(both);
    eventually("two primaries are told", || {
        serve.program.errors().contains("ambiguous")
    });
    assert_eq!(revision(&serve, &[&ca]), "r1");
    // The directory gone altogether.
    let away = identity.folder().join("away");
    std::fs::rename(identity.path(), &away).unwrap();
    eventually("its absence is told", || {
        serve.program.errors().contains("cannot be read")
    });
    assert_eq!(revision(&serve, &[&ca]), "r1");
    // And what is good again is taken.
    std::fs::rename(&away, identity.path()).unwrap();
    identity.publish([("r9.crt.primary", &two.crt), ("r9.key", &two.key)]);
    eventually("r9 is presented", || revision(&serve, &[&ca]) == "r9");
    let end = serve.stop();
    assert!(
        end.stderr.contains(arg(identity.path())),
        "the log names no directory: {}",
        end.stderr
    );
}

/// `tls.crt tls.key ca.crt`, as cert-manager writes it, opened as trust anchors: `tls` is no CA.
#[test]
fn of_a_cert_manager_secret_only_the_ca_is_trusted() {
    let (servers, ca) = (Ca::new("servers"), Ca::new("cluster"));
    let identity = KeyDir::identity("r1", &servers.leaf("server"));
    let own = ca.leaf("client");
    let secret = KeyDir::with([
        ("tls.crt", own.crt.clone()),
        ("tls.key", own.key.clone()),
        ("ca.crt", ca.pem()),
    ]);
    let forger = Ca::of_leaf(&own);
    let forged = forger.leaf("admin");

    // Control: to rustls alone, with all certificates of the Secret as roots, the forged one is good.
    let mut roots = RootCertStore::empty();
    roots.add(own.der.clone()).unwrap();
    roots.add(ca.der().clone()).unwrap();
    let naive = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()));
    naive
        .build()
        .unwrap()
        .verify_client_cert(&forged.der, &[], UnixTime::now())
        .unwrap();

    let serve = Serve::start(identity.path(), &["--clients", arg(secret.path())]);
    let answer = fresh(&serve, &[&servers], Some(&own)).json().unwrap();
    assert_eq!(answer["client"], json!({"subject": "CN=client", "ca": "ca"}));
    for version in [Version::Tls12, Version::Tls13] {
        let refused = PlainClient::new(serve.port, &[&servers], Some(&forged), version).get();
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("received fatal alert"), "{error}");
    }
    serve.stop();

    // The same Secret is an identity as it is.
    let serve = Serve::start(secret.path(), &[]);
    assert_eq!(revision(&serve, &[&ca]), "tls");
    serve.stop();
}

#[test]
fn broken_clients_and_used_up_descriptors_do_not_end_the_server() {
    let ca = Ca::new("servers");
    let identity = KeyDir::identity("r1", &ca.leaf("server"));
    let serve = Serve::start(identity.path(), &[]);
    let tcp = || TcpStream::connect((Ipv4Addr::LOCALHOST, serve.port)).unwrap();

    // Garbage; half a record; nothing at all; a request that is none; a huge head; an unknown method.
    let mut garbage = tcp();
    garbage.write_all(&[0xff; 2000]).unwrap();
    let mut half = tcp();
    half.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    let silent = tcp();
    drop(tcp());
    let client = fresh(&serve, &[&ca], None);
    let say = |bytes: &[u8]| -> Connection {
        let mut connection = client.connect().unwrap();
        // The server may close while it is still being told.
        let _ = connection.send(bytes);
        connection
    };
    assert_eq!(say(b"nonsense\r\n\r\n").receive().unwrap().status, 400);
    let mut head = b"GET / HTTP/1.1\r\nx: ".to_vec();
    head.resize(1 << 20, b'x');
    assert!(say(&head).receive().map_or(true, |answer| answer.status == 431));
    assert_eq!(
        say(b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n").receive().unwrap().status,
        405
    );
    let mut text = Vec::new();
    garbage.read_to_end(&mut text).unwrap();
    assert_eq!(revision(&serve, &[&ca]), "r1");
    drop((half, silent));

    // As many files as it may open, taken by clients that do nothing; when they go, it goes on.
    rustix::process::prlimit(
        Some(serve.program.pid()),
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: Some(40),
            maximum: Some(40),
        },
    )
    .unwrap();
    let idle: Vec<_> = (0..60).map(|_| tcp()).collect();
    eventually("accepting fails", || {
        serve.program.errors().contains("cannot accept a connection")
    });
    drop(idle);
    eventually("it serves again", || revision(&serve, &[&ca]) == "r1");
    serve.stop();
}

#[test]
fn asked_to_end_it_closes_what_is_idle_or_silent_and_ends_well() {
    let ca = Ca::new("servers");
    let identity = KeyDir::identity("r1", &ca.leaf("server"));
    for signal in [Signal::TERM, Signal::INT] {
        let serve = Serve::start(identity.path(), &[]);
        let _silent = TcpStream::connect((Ipv4Addr::LOCALHOST, serve.port)).unwrap();
        let mut idle = fresh(&serve, &[&ca], None).connect().unwrap();
        assert_eq!(idle.get().unwrap().status, 200);
        serve.program.signal(signal);
        assert!(idle.is_closed());
        let end = serve.program.end();
        assert_eq!(end.code, Some(0), "{end:?}");
        // Nothing was waited for to the last.
        assert!(
            !end.stderr.contains("handshake") && !end.stderr.contains("were cut"),
            "{end:?}"
        );
    }
}

#[test]
fn what_cannot_be_opened_or_understood_is_said() {
    let ca = Ca::new("servers");
    let good = KeyDir::identity("r1", &ca.leaf("server"));
    let anchors = KeyDir::cas(&[("c1", &ca)]);
    let usage = |command: &mut Command| {
        let end = Program::run(command);
        assert_eq!((end.code, end.stdout.as_str()), (Some(2), ""), "{end:?}");
        assert!(end.stderr.starts_with("error: "), "{end:?}");
    };
    usage(&mut example("serve"));
    usage(example("serve").args(["--listen", "here", "--identity", "x"]));
    usage(example("serve").args(["--listen", "127.0.0.1:0", "--identity", "x", "--optional"]));
    usage(&mut example("call"));
    usage(example("axum").args(["--listen", "127.0.0.1:99999", "--identity", "x"]));
    for url in [
        "http://localhost/",
        "localhost",
        "https://",
        "https://a b/",
        "https://localhost:x/",
        "",
    ] {
        usage(example("call").args(["--trust", arg(anchors.path()), url]));
    }
    usage(example("call").args(["--trust", "x", "--every", "18446744073709551615", "https://localhost/"]));

    let fails = |command: &mut Command, reasons: &[&str]| {
        let end = Program::run(command);
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
        assert_eq!(
            end.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{end:?}"
        );
        for reason in reasons {
            assert!(end.stderr.contains(reason), "{reason}: {end:?}");
        }
    };
    for program in ["serve", "axum"] {
        let listen = ["--listen", "127.0.0.1:0", "--identity"];
        fails(
            example(program).args(listen).arg("/no/such/dir"),
            &["/no/such/dir", "check that it exists"],
        );
        // A directory of CAs is no identity.
        fails(
            example(program).args(listen).arg(anchors.path()),
            &[arg(anchors.path()), "nothing to present"],
        );
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let command = &mut example(program);
        command.args(["--listen", &address, "--identity", arg(good.path())]);
        fails(
            command,
            &[&format!("cannot listen on {address}: Address already in use")],
        );
    }
    let command = &mut example("call");
    command.args(["--trust", arg(good.path()), "https://localhost/"]);
    fails(command, &[arg(good.path()), "nothing to accept"]);

    // Nobody there: that is an answer of `call`, not a failure to start.
    let url = format!("https://localhost:{}/", keydir_integration::free_port());
    let (lines, code) = Call::run(anchors.path(), None, &["--count", "2"], &url);
    assert_eq!((lines.len(), code), (2, Some(1)));
    assert_eq!(lines[1]["n"], 2);
    assert!(
        lines[0]["error"]
            .as_str()
            .unwrap()
            .starts_with("cannot connect: Connection refused"),
        "{}",
        lines[0]
    );
}

#[test]
fn the_same_config_in_axum_server() {
    let ca = Ca::new("servers");
    let mut identity = KeyDir::identity("r1", &ca.leaf("one"));
    let mut command = example("axum");
    command.args(["--listen", "127.0.0.1:0", "--identity", arg(identity.path())]);
    let axum = Program::start(&mut command);
    let line = axum.line().unwrap();
    let port = line.strip_prefix("listening 127.0.0.1:").unwrap().parse().unwrap();

    // By the certificate that a client trusts it is seen which one is presented.
    let other = Ca::new("other servers");
    let gets_in = |ca: &Ca| PlainClient::new(port, &[ca], None, Version::Tls13).get().is_ok();
    assert!(gets_in(&ca) && !gets_in(&other));
    let second = other.leaf("two");
    identity.add([("r2.crt", &second.crt), ("r2.key", &second.key)]);
    identity.promote("r2");
    eventually("r2 is presented", || gets_in(&other));
    assert!(!gets_in(&ca));
    axum.signal(Signal::TERM);
    assert_eq!(axum.end().code, Some(0));
}
