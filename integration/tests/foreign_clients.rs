//! Peers that we did not write: openssl, curl, Python and Node against `serve`, openssl's server against `call`.
//!
//! Each client saves a session, resumes it (the control), and is refused with it when its CA has been removed, while
//! a client of the CA that remains goes on resuming.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keydir_integration::{
    Ca, Call, End, KeyDir, Leaf, PlainClient, Program, Serve, Version, eventually, free_port, tool,
};
use serde_json::{Value, json};

/// A server that trusts clients of two CAs, and files for the tools.
struct Scene {
    servers: Ca,
    c1: Ca,
    old: Leaf,
    new: Leaf,
    _identity: KeyDir,
    cas: KeyDir,
    serve: Serve,
    files: tempfile::TempDir,
}

impl Scene {
    fn new(tickets: bool) -> Self {
        let (servers, c1, c2) = (Ca::new("servers"), Ca::new("clients 1"), Ca::new("clients 2"));
        let identity = KeyDir::identity("r1", &servers.leaf("server"));
        let cas = KeyDir::cas(&[("c1", &c1), ("c2", &c2)]);
        let mut arguments = vec!["--clients", cas.path().to_str().unwrap()];
        arguments.extend(tickets.then_some("--tickets"));
        let serve = Serve::start(identity.path(), &arguments);
        let files = tempfile::tempdir().unwrap();
        let (old, new) = (c1.leaf("old"), c2.leaf("new"));
        for (name, content) in [
            ("root.pem", servers.pem()),
            ("old.crt", old.crt.clone()),
            ("old.key", old.key.clone()),
            ("new.crt", new.crt.clone()),
            ("new.key", new.key.clone()),
        ] {
            fs::write(files.path().join(name), content).unwrap();
        }
        Self {
            servers,
            c1,
            old,
            new,
            _identity: identity,
            cas,
            serve,
            files,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Removes the CA of `old`, and waits until a client of it is refused.
    fn remove_old(&mut self) {
        self.cas.remove("c1");
        self.until_old_is_refused();
    }

    /// Revokes `old` alone, by a CRL of its CA.
    fn revoke_old(&mut self) {
        let crl = self.c1.crl(1, &[&self.old]);
        self.cas.add([("c1.crl", crl)]);
        self.until_old_is_refused();
    }

    /// By the verifier: a handshake that was too slow, or overtaken, fails too, and says nothing of the next. One
    /// client, which resumes in TLS 1.2, since each new session would push another out of the server's store.
    fn until_old_is_refused(&self) {
        let client = PlainClient::new(self.serve.port, &[&self.servers], Some(&self.old), Version::Tls12);
        eventually("a client of c1 is refused", || {
            let refused = client.get().err();
            refused.is_some_and(|error| error.to_string().contains("received fatal alert"))
        });
    }

    /// What `serve` answers to the client with this name.
    fn answer(name: &str, resumed: bool) -> Value {
        let ca = if name == "old" { "c1" } else { "c2" };
        json!({"revision": "r1", "client": {"subject": format!("CN={name}"), "ca": ca}, "resumed": resumed})
    }
}

/// The lines of JSON among what a tool prints.
fn answers(stdout: &str) -> Vec<Value> {
    stdout
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(Value::is_object)
        .collect()
}

/// One request by `openssl s_client`; a session is read from a file, or written to it.
fn s_client(scene: &Scene, version: &str, name: &str, session: [&str; 2]) -> End {
    let mut command = tool("openssl", "openssl");
    command.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{}", scene.serve.port),
        "-servername",
        "localhost",
    ]);
    command
        .args([version, "-verify_return_error", "-ign_eof", "-CAfile"])
        .arg(scene.file("root.pem"));
    command.arg("-cert").arg(scene.file(&format!("{name}.crt")));
    command.arg("-key").arg(scene.file(&format!("{name}.key")));
    command.arg(session[0]).arg(scene.file(session[1]));
    let mut program = Program::with_input(&mut command);
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    // If it is refused it may be gone already.
    let _ = std::io::Write::write_all(&mut program.input(), request);
    program.end()
}

#[test]
fn openssl_s_client() {
    for tickets in [false, true] {
        for version in ["-tls1_2", "-tls1_3"] {
            let case = format!("{version}, tickets: {tickets}");
            let mut scene = Scene::new(tickets);
            for name in ["old", "new"] {
                let end = s_client(&scene, version, name, ["-sess_out", name]);
                assert_eq!(answers(&end.stdout), [Scene::answer(name, false)], "{case}: {end:?}");
                assert!(scene.file(name).exists(), "{case}: no session was given");
                let end = s_client(&scene, version, name, ["-sess_in", name]);
                assert_eq!(answers(&end.stdout), [Scene::answer(name, true)], "{case}: {end:?}");
                assert!(end.stdout.contains("\nReused, "), "{case}: {end:?}");
            }
            // A TLS 1.3 session in the server's memory serves once, so each gets another.
            for name in ["old", "new"] {
                let end = s_client(&scene, version, name, ["-sess_out", name]);
                assert_eq!(answers(&end.stdout), [Scene::answer(name, false)], "{case}: {end:?}");
            }
            scene.remove_old();
            let end = s_client(&scene, version, "old", ["-sess_in", "old"]);
            assert!(answers(&end.stdout).is_empty(), "{case}: {end:?}");
            assert!(end.stderr.contains("alert"), "{case}: {end:?}");
            let end = s_client(&scene, version, "new", ["-sess_in", "new"]);
            assert_eq!(answers(&end.stdout), [Scene::answer("new", true)], "{case}: {end:?}");
            scene.serve.stop();
        }
    }
}

#[test]
fn openssl_s_client_whom_a_crl_revokes() {
    for tickets in [false, true] {
        for version in ["-tls1_2", "-tls1_3"] {
            let case = format!("{version}, tickets: {tickets}");
            let mut scene = Scene::new(tickets);
            // A neighbour under the same CA goes on.
            let neighbour = scene.c1.leaf("neighbour");
            fs::write(scene.file("neighbour.crt"), &neighbour.crt).unwrap();
            fs::write(scene.file("neighbour.key"), &neighbour.key).unwrap();
            let answer = |name: &str, resumed: bool| json!({"revision": "r1", "client": {"subject": format!("CN={name}"), "ca": "c1"}, "resumed": resumed});
            for name in ["old", "neighbour"] {
                for (session, resumed) in [("-sess_out", false), ("-sess_in", true), ("-sess_out", false)] {
                    let end = s_client(&scene, version, name, [session, name]);
                    assert_eq!(answers(&end.stdout), [answer(name, resumed)], "{case}: {end:?}");
                }
            }
            scene.revoke_old();
            let end = s_client(&scene, version, "old", ["-sess_in", "old"]);
            assert!(answers(&end.stdout).is_empty(), "{case}: {end:?}");
            assert!(end.stderr.contains("certificate revoked"), "{case}: {end:?}");
            let end = s_client(&scene, version, "neighbour", ["-sess_in", "neighbour"]);
            assert_eq!(answers(&end.stdout), [answer("neighbour", true)], "{case}: {end:?}");
            scene.serve.stop();
        }
    }
}

#[test]
fn curl() {
    let curl = |scene: &Scene, version: &str, name: &str| {
        let mut command = tool("curl", "curl");
        command.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--tls-max",
            version,
            "--cacert",
        ]);
        command.arg(scene.file("root.pem"));
        command.arg("--cert").arg(scene.file(&format!("{name}.crt")));
        command.arg("--key").arg(scene.file(&format!("{name}.key")));
        // Twice: the second request goes over the connection of the first.
        let url = scene.serve.url().replace("localhost", "127.0.0.1");
        Program::run(command.args([&url, &url]))
    };
    for version in ["1.2", "1.3"] {
        let mut scene = Scene::new(false);
        for name in ["old", "new"] {
            let end = curl(&scene, version, name);
            let answer = Scene::answer(name, false);
            assert_eq!(
                (end.code, answers(&end.stdout)),
                (Some(0), vec![answer.clone(), answer]),
                "{end:?}"
            );
        }
        scene.remove_old();
        let end = curl(&scene, version, "old");
        assert!(end.code != Some(0) && answers(&end.stdout).is_empty(), "{end:?}");
        assert!(end.stderr.contains("alert"), "{end:?}");
        assert_eq!(curl(&scene, version, "new").code, Some(0));
        scene.serve.stop();
    }
}

/// A client in another language. It waits for a line between what it does, since sessions live in the process: it
/// connects twice as each client, then, after the removal, once more with the sessions.
fn scripted(interpreter: impl Fn() -> Command, script: &str) {
    for tickets in [false, true] {
        for version in ["1.2", "1.3"] {
            let case = format!("TLS {version}, tickets: {tickets}");
            let mut scene = Scene::new(tickets);
            let file = scene.file("client");
            fs::write(&file, script).unwrap();
            let mut run = interpreter();
            run.arg(&file).arg(scene.serve.port.to_string()).arg(version);
            let mut client = Program::with_input(run.current_dir(scene.files.path()));
            let mut input = client.input();
            let next = |client: &Program| client.line().unwrap_or_else(|| panic!("{case}: {}", client.errors()));
            for name in ["old", "new"] {
                for resumed in [false, true] {
                    let line = next(&client);
                    assert_eq!(answers(&line), [Scene::answer(name, resumed)], "{case}: {line}");
                }
            }
            scene.remove_old();
            std::io::Write::write_all(&mut input, b"removed\n").unwrap();
            let line = next(&client);
            assert!(
                line.starts_with("refused: ") && line.to_lowercase().contains("alert"),
                "{case}: {line}"
            );
            let line = next(&client);
            assert_eq!(answers(&line), [Scene::answer("new", true)], "{case}: {line}");
            assert_eq!(client.end().code, Some(0), "{case}");
            scene.serve.stop();
        }
    }
}

#[test]
fn python_ssl() {
    const SCRIPT: &str = r#"
import socket, ssl, sys

port, version = int(sys.argv[1]), sys.argv[2]
contexts, sessions = {}, {}
for name in ["old", "new"]:
    context = ssl.create_default_context(cafile="root.pem")
    context.load_cert_chain(name + ".crt", name + ".key")
    wanted = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
    context.minimum_version = context.maximum_version = wanted
    contexts[name] = context

def get(name):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as tcp:
        session = sessions.get(name)
        with contexts[name].wrap_socket(tcp, server_hostname="localhost", session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            answer = b""
            while part := tls.recv(65536):
                answer += part
            # After the answer, so that the tickets of TLS 1.3 have come.
            sessions[name] = tls.session
            return answer.split(b"\r\n\r\n", 1)[1].decode().strip()

for name in ["old", "old", "new", "new"]:
    print(get(name), flush=True)
sys.stdin.readline()
try:
    print("let in: " + get("old"), flush=True)
except OSError as error:
    print(f"refused: {error}", flush=True)
print(get("new"), flush=True)
"#;
    scripted(|| tool("python3", "python3"), SCRIPT);
}

#[test]
fn node() {
    const SCRIPT: &str = r#"
const fs = require("fs"), tls = require("tls"), readline = require("readline");
const [port, version] = process.argv.slice(2);
const sessions = {};

function get(name) {
  return new Promise((resolve, reject) => {
    let answer = "";
    const socket = tls.connect({
      host: "127.0.0.1", port: Number(port), servername: "localhost",
      ca: fs.readFileSync("root.pem"),
      cert: fs.readFileSync(name + ".crt"), key: fs.readFileSync(name + ".key"),
      minVersion: "TLSv" + version, maxVersion: "TLSv" + version,
      session: sessions[name],
    });
    socket.setEncoding("utf8");
    socket.on("session", (session) => { sessions[name] = session; });
    socket.on("error", reject);
    socket.on("data", (data) => { answer += data; });
    // Only when all is over: an alert is told as an error, perhaps after the end of the data.
    socket.on("close", () => answer ? resolve(answer.split("\r\n\r\n")[1].trim()) : reject(new Error("no answer")));
    socket.write("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
  });
}

(async () => {
  for (const name of ["old", "old", "new", "new"]) console.log(await get(name));
  const input = readline.createInterface({ input: process.stdin });
  await new Promise((resolve) => input.once("line", resolve));
  input.close();
  try {
    console.log("let in: " + await get("old"));
  } catch (error) {
    console.log("refused: " + error.message.replace(/\n/g, " "));
  }
  console.log(await get("new"));
})();
"#;
    scripted(|| tool("node", "nodejs"), SCRIPT);
}

/// openssl as a server that requires a client certificate.
fn s_server(files: &Path, version: &str) -> (Program, u16) {
    loop {
        let port = free_port();
        let mut command = tool("openssl", "openssl");
        command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), version, "-www"]);
        command.args(["-Verify", "1", "-verify_return_error", "-CAfile", "clients.pem"]);
        command.args(["-cert", "server.crt", "-key", "server.key"]);
        let program = Program::start(command.current_dir(files));
        while let Some(line) = program.line() {
            if line.starts_with("ACCEPT") {
                return (program, port);
            }
        }
        // Somebody else was quicker.
        assert!(program.errors().contains("in use"), "{}", program.errors());
    }
}

#[test]
fn openssl_s_server() {
    for version in ["-tls1_2", "-tls1_3"] {
        let (s1, s2, clients) = (Ca::new("servers 1"), Ca::new("servers 2"), Ca::new("clients"));
        let server = s1.leaf("server");
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("server.crt"), &server.crt).unwrap();
        fs::write(files.path().join("server.key"), &server.key).unwrap();
        fs::write(files.path().join("clients.pem"), clients.pem()).unwrap();
        let mut trust = KeyDir::cas(&[("s1", &s1), ("s2", &s2)]);
        let mut identity = KeyDir::identity("r1", &clients.leaf("one"));
        let (_server, port) = s_server(files.path(), version);
        let call = Call::start(
            trust.path(),
            Some(identity.path()),
            &["--count", "0", "--every", "10"],
            &format!("https://localhost:{port}/"),
        );
        let line = call.line();
        assert_eq!(
            (&line["ok"], &line["identity"], &line["server_ca"], &line["resumed"]),
            (&json!(true), &json!("r1"), &json!("s1"), &json!(false)),
            "{version}: {line}"
        );
        call.until("a resumed session", |line| line["resumed"] == true);

        // Its own identity changes: the next handshake is a full one with the new leaf, and that resumes too.
        let two = clients.leaf("two");
        identity.add([("r2.crt", &two.crt), ("r2.key", &two.key)]);
        identity.promote("r2");
        let first = call.until("r2", |line| line["identity"] == "r2");
        assert_eq!(first["resumed"], false, "{version}: {first}");
        call.until("a resumed session of r2", |line| {
            line["resumed"] == true && line["identity"] == "r2"
        });

        // The server's CA is removed from what the client trusts: no session helps.
        trust.remove("s1");
        let failed = loop {
            let line = call.line();
            if line["ok"] == false {
                break line;
            }
        };
        assert!(
            failed["error"].as_str().unwrap().contains("UnknownIssuer"),
            "{version}: {failed}"
        );
        assert_eq!(call.line()["ok"], false);
    }
}

#[test]
fn rustls_without_keydir() {
    for tickets in [false, true] {
        for version in [Version::Tls12, Version::Tls13] {
            let case = format!("{version:?}, tickets: {tickets}");
            let mut scene = Scene::new(tickets);
            let old = PlainClient::new(scene.serve.port, &[&scene.servers], Some(&scene.old), version);
            let stays = PlainClient::new(scene.serve.port, &[&scene.servers], Some(&scene.new), version);
            for (client, name) in [(&old, "old"), (&stays, "new")] {
                for resumed in [false, true] {
                    assert_eq!(client.json(), Some(Scene::answer(name, resumed)), "{case}");
                }
            }
            scene.remove_old();
            let refused = old.get().unwrap_err().to_string();
            assert!(refused.contains("received fatal alert"), "{case}: {refused}");
            assert_eq!(stays.json(), Some(Scene::answer("new", true)), "{case}");
            scene.serve.stop();
        }
    }
}
