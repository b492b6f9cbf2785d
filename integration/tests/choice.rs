//! In the middle of a rotation, peers that we did not write get the revision that they can verify: openssl as client
//! and as server, Node as server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::Path;

use keydir_integration::{Ca, Call, KeyDir, Leaf, Program, Serve, free_port, tool};
use serde_json::Value;

/// `r1` and `r2`, of which the second is the primary.
fn both(first: &Leaf, second: &Leaf) -> KeyDir {
    let mut dir = KeyDir::identity("r1", first);
    dir.add([("r2.crt", &second.crt), ("r2.key", &second.key)]);
    dir.promote("r2");
    dir
}

/// The revision that `serve` presents to `openssl s_client`; `None` if the client does not take it.
fn presented(port: u16, folder: &Path, arguments: &[&str]) -> Option<Value> {
    let mut command = tool("openssl", "openssl");
    command.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{port}"),
        "-servername",
        "localhost",
    ]);
    command.args(["-verify_return_error", "-ign_eof"]).args(arguments);
    let mut program = Program::with_input(command.current_dir(folder));
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    // If it has refused the server it may be gone already.
    let _ = program.input().write_all(request);
    let end = program.end();
    let mut answers = end
        .stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let revision = answers.find_map(|answer| answer.get("revision").cloned());
    assert!(
        revision.is_some() || end.stderr.contains("verify"),
        "{arguments:?}: {end:?}"
    );
    revision
}

#[test]
fn openssl_s_client_by_its_cas() {
    let (s1, s2) = (Ca::new("servers 1"), Ca::new("servers 2"));
    let identity = both(&s1.leaf("one"), &s2.leaf("two"));
    let folder = tempfile::tempdir().unwrap();
    for (name, pem) in [
        ("1.pem", s1.pem()),
        ("2.pem", s2.pem()),
        ("12.pem", s1.pem() + &s2.pem()),
    ] {
        fs::write(folder.path().join(name), pem).unwrap();
    }
    let serve = Serve::start(identity.path(), &[]);
    let presented = |arguments: &[&str]| presented(serve.port, folder.path(), arguments);
    for (cas, expected) in [("1.pem", "r1"), ("2.pem", "r2"), ("12.pem", "r2")] {
        let arguments = ["-tls1_3", "-CAfile", cas, "-requestCAfile", cas];
        assert_eq!(presented(&arguments), Some(expected.into()), "{cas}");
    }
    // The controls: it does not name them, or in TLS 1.2 in vain.
    assert_eq!(presented(&["-tls1_3", "-CAfile", "1.pem"]), None);
    assert_eq!(
        presented(&["-tls1_2", "-CAfile", "1.pem", "-requestCAfile", "1.pem"]),
        None
    );
    assert_eq!(presented(&["-tls1_2", "-CAfile", "2.pem"]), Some("r2".into()));
    serve.stop();
}

#[test]
fn openssl_s_client_by_its_signature_algorithms() {
    let ca = Ca::new("servers");
    let identity = both(&ca.rsa_leaf("rsa"), &ca.leaf("ecdsa"));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
    let serve = Serve::start(identity.path(), &[]);
    for version in ["-tls1_3", "-tls1_2"] {
        for (algorithms, expected) in [
            ("RSA-PSS+SHA256", "r1"),
            ("ECDSA+SHA256", "r2"),
            ("RSA-PSS+SHA256:ECDSA+SHA256", "r2"),
        ] {
            let arguments = [version, "-CAfile", "ca.pem", "-sigalgs", algorithms];
            let revision = presented(serve.port, folder.path(), &arguments);
            assert_eq!(revision, Some(expected.into()), "{version} {algorithms}");
        }
    }
    serve.stop();
}

/// A client whose primary is of the new CA, before servers that know one CA or the other.
struct Client {
    identity: KeyDir,
    trust: KeyDir,
    folder: tempfile::TempDir,
}

impl Client {
    fn new() -> Self {
        let servers = Ca::new("servers");
        let clients = ["clients 1", "clients 2"].map(Ca::new);
        let [one, two] = clients.each_ref().map(|ca| ca.leaf("client"));
        let (folder, server) = (tempfile::tempdir().unwrap(), servers.leaf("server"));
        for (name, content) in [
            ("server.crt", server.crt),
            ("server.key", server.key),
            ("1.pem", clients[0].pem()),
            ("2.pem", clients[1].pem()),
        ] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Self {
            identity: both(&one, &two),
            trust: KeyDir::cas(&[("s1", &servers)]),
            folder,
        }
    }

    /// The revision that it presents in a call that succeeds.
    fn presents(&self, port: u16) -> Value {
        let url = format!("https://localhost:{port}/");
        let (lines, code) = Call::run(self.trust.path(), Some(self.identity.path()), &["--count", "1"], &url);
        assert_eq!((code, lines.len()), (Some(0), 1), "{lines:?}");
        lines[0]["identity"].clone()
    }
}

#[test]
fn openssl_s_server() {
    for version in ["-tls1_3", "-tls1_2"] {
        let client = Client::new();
        for (cas, expected) in [("1.pem", "r1"), ("2.pem", "r2")] {
            let (server, port) = loop {
                let port = free_port();
                let mut command = tool("openssl", "openssl");
                command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), version, "-www"]);
                command.args(["-Verify", "1", "-verify_return_error", "-CAfile", cas]);
                command.args(["-cert", "server.crt", "-key", "server.key"]);
                let program = Program::start(command.current_dir(client.folder.path()));
                let mut lines = std::iter::from_fn(|| program.line());
                if lines.any(|line| line.starts_with("ACCEPT")) {
                    break (program, port);
                }
                // Somebody else was quicker.
                assert!(program.errors().contains("in use"), "{}", program.errors());
            };
            assert_eq!(client.presents(port), expected, "{version} {cas}");
            drop(server);
        }
    }
}

/// One process that knows one CA, and at a line of input the other.
#[test]
fn node_as_a_server() {
    const SCRIPT: &str = r#"
const fs = require("fs"), https = require("https"), readline = require("readline");
const port = Number(process.argv[2]), version = process.argv[3];
const knows = (name) => ({
  cert: fs.readFileSync("server.crt"), key: fs.readFileSync("server.key"), ca: fs.readFileSync(name),
  minVersion: version, maxVersion: version,
});
const options = { ...knows("1.pem"), requestCert: true, rejectUnauthorized: true };
const server = https.createServer(options, (request, answer) => answer.end("fine"));
server.on("error", () => console.log("in use"));
server.listen(port, "127.0.0.1", () => console.log("1.pem"));
readline.createInterface({ input: process.stdin }).on("line", (name) => {
  server.setSecureContext(knows(name));
  console.log(name);
}).on("close", () => process.exit());
"#;
    for version in ["TLSv1.3", "TLSv1.2"] {
        let client = Client::new();
        let file = client.folder.path().join("server.js");
        fs::write(&file, SCRIPT).unwrap();
        let (mut node, port) = loop {
            let port = free_port();
            let mut command = tool("node", "nodejs");
            command.arg(&file).args([&port.to_string(), version]);
            let program = Program::with_input(command.current_dir(client.folder.path()));
            match program.line() {
                Some(line) if line == "1.pem" => break (program, port),
                line => assert_eq!(line.as_deref(), Some("in use"), "{}", program.errors()),
            }
        };
        let mut input = node.input();
        for (cas, expected) in [("1.pem", "r1"), ("2.pem", "r2"), ("1.pem", "r1")] {
            writeln!(input, "{cas}").unwrap();
            assert_eq!(node.line().as_deref(), Some(cas), "{}", node.errors());
            assert_eq!(client.presents(port), expected, "{version} {cas}");
        }
        drop(input);
        assert_eq!(node.end().code, Some(0));
    }
}
