//! Connections that are open when something is revoked, of clients that we did not write: openssl, Python and Node
//! against `serve`.
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
use std::process::{ChildStdin, Command};
use std::time::{Duration, Instant};

use keydir_integration::{Ca, KeyDir, Leaf, PlainClient, Program, Serve, Version, eventually, tool};
use serde_json::Value;

const GRACE: Duration = Duration::from_secs(4);

/// Sends a request over one connection for each line that it reads, and says what came of it.
const PYTHON: &str = r#"
import http.client, json, ssl, sys
port, root, crt, key = sys.argv[1:]
context = ssl.create_default_context(cafile=root)
context.load_cert_chain(crt, key)
connection = http.client.HTTPSConnection("localhost", int(port), context=context)
for line in sys.stdin:
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read()
        print(json.dumps({"status": response.status, "closes": response.getheader("connection") == "close",
                          "body": json.loads(body) if body else None}), flush=True)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        print(json.dumps({"error": str(error) or type(error).__name__}), flush=True)
"#;

const NODE: &str = r#"
const [port, root, crt, key] = process.argv.slice(1), fs = require("fs"), https = require("https");
const agent = new https.Agent({keepAlive: true, maxSockets: 1});
const options = {host: "localhost", port, agent, ca: fs.readFileSync(root), cert: fs.readFileSync(crt),
                 key: fs.readFileSync(key)};
const say = what => console.log(JSON.stringify(what));
require("readline").createInterface({input: process.stdin}).on("line", () => {
  https.get(options, response => {
    let body = "";
    response.on("data", data => body += data);
    response.on("end", () => say({status: response.statusCode, closes: response.headers.connection === "close",
                                  body: body ? JSON.parse(body) : null}));
  }).on("error", error => say({error: error.message}));
}).on("close", () => agent.destroy());
"#;

/// A client that keeps its connection.
struct Client {
    program: Program,
    input: ChildStdin,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut program = Program::with_input(&mut command);
        Self {
            input: program.input(),
            program,
        }
    }

    fn python(folder: &Path, port: u16, name: &str) -> Self {
        let mut command = tool("python3", "python3");
        command.args(["-c", PYTHON]);
        Self::start(with_files(command, folder, port, name))
    }

    fn node(folder: &Path, port: u16, name: &str) -> Self {
        let mut command = tool("node", "nodejs");
        command.args(["-e", NODE]);
        Self::start(with_files(command, folder, port, name))
    }

    fn openssl(folder: &Path, port: u16, name: &str) -> Self {
        let mut command = tool("openssl", "openssl");
        command.args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost"]);
        command.args(["-connect", &format!("127.0.0.1:{port}")]);
        command.arg("-CAfile").arg(folder.join("root.pem"));
        command.arg("-cert").arg(folder.join(format!("{name}.crt")));
        command.arg("-key").arg(folder.join(format!("{name}.key")));
        Self::start(command)
    }

    fn ask(&mut self, request: &str) -> Value {
        writeln!(self.input, "{request}").unwrap();
        loop {
            let line = self
                .program
                .line()
                .unwrap_or_else(|| panic!("{}", self.program.errors()));
            if let Ok(answer @ Value::Object(_)) = serde_json::from_str(&line) {
                return answer;
            }
        }
    }
}

fn with_files(mut command: Command, folder: &Path, port: u16, name: &str) -> Command {
    command.arg(port.to_string()).arg(folder.join("root.pem"));
    command.arg(folder.join(format!("{name}.crt")));
    command.arg(folder.join(format!("{name}.key")));
    command
}

fn files(root: &Ca, leaves: &[(&str, &Leaf)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("root.pem"), root.pem()).unwrap();
    for (name, leaf) in leaves {
        fs::write(folder.path().join(format!("{name}.crt")), &leaf.crt).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), &leaf.key).unwrap();
    }
    folder
}

const HTTP: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r";

#[test]
fn the_connections_of_a_removed_ca_end_and_the_others_go_on() {
    let (servers, c1, c2) = (Ca::new("servers"), Ca::new("clients 1"), Ca::new("clients 2"));
    let identity = KeyDir::identity("r1", &servers.leaf("server"));
    let mut cas = KeyDir::cas(&[("c1", &c1), ("c2", &c2)]);
    let grace = GRACE.as_secs().to_string();
    let serve = Serve::start(
        identity.path(),
        &["--clients", cas.path().to_str().unwrap(), "--grace", &grace],
    );
    let (old, new) = (c1.leaf("old"), c2.leaf("new"));
    let folder = files(&servers, &[("old", &old), ("new", &new)]);
    let (folder, port) = (folder.path(), serve.port);

    let mut idle = Client::openssl(folder, port, "old");
    assert_eq!(idle.ask(HTTP)["client"]["ca"], "c1");
    let mut stays = Client::openssl(folder, port, "new");
    assert_eq!(stays.ask(HTTP)["client"]["ca"], "c2");
    let mut clients = [Client::python(folder, port, "old"), Client::node(folder, port, "old")];
    for client in &mut clients {
        let answer = client.ask("");
        assert_eq!(
            (&answer["status"], &answer["body"]["client"]["ca"]),
            (&200.into(), &"c1".into())
        );
        assert_eq!(answer["closes"], false);
    }

    let removed = Instant::now();
    cas.remove("c1");
    eventually("a client of c1 is refused", || {
        PlainClient::new(port, &[&servers], Some(&old), Version::Tls13)
            .get()
            .is_err()
    });
    for client in &mut clients {
        let answer = client.ask("");
        assert_eq!(
            (&answer["status"], &answer["closes"]),
            (&421.into(), &true.into()),
            "{answer}"
        );
        let answer = client.ask("");
        assert!(answer["error"].is_string(), "a new connection is refused: {answer}");
    }
    // Nothing is asked here: it is closed in the second half of the grace.
    let end = idle.program.end();
    let after = removed.elapsed();
    assert!(after >= GRACE / 2 && after < GRACE * 2, "after {after:?}: {end:?}");
    assert_eq!(stays.ask(HTTP)["client"]["ca"], "c2");
    assert!(stays.program.runs());
    serve.stop();
}

#[test]
fn clients_that_keep_their_connection_move_on_when_the_server_has_a_new_leaf() {
    let servers = Ca::new("servers");
    let mut identity = KeyDir::identity("r1", &servers.leaf("server"));
    let clients = Ca::new("clients");
    let cas = KeyDir::cas(&[("c1", &clients)]);
    let serve = Serve::start(identity.path(), &["--clients", cas.path().to_str().unwrap()]);
    let own = clients.leaf("own");
    let folder = files(&servers, &[("own", &own)]);
    let (folder, port) = (folder.path(), serve.port);
    let mut clients = [Client::python(folder, port, "own"), Client::node(folder, port, "own")];
    let mut all = |what: &str| {
        let answers = clients.each_mut().map(|client| client.ask(""));
        for answer in &answers {
            assert_eq!(answer["status"], 200, "{what}: {answer}");
        }
        answers.map(|answer| (answer["body"]["revision"].clone(), answer["closes"].clone()))
    };
    let each = |revision: &str, closes: bool| [(); 2].map(|()| (revision.into(), closes.into()));

    assert_eq!(all("at first"), each("r1", false));
    let leaf = servers.leaf("server");
    identity.add([("r2.crt", &leaf.crt), ("r2.key", &leaf.key)]);
    identity.promote("r2");
    eventually("r2 is presented", || {
        let plain = PlainClient::new(port, &[&servers], Some(&own), Version::Tls13);
        plain.json().is_some_and(|answer| answer["revision"] == "r2")
    });
    assert_eq!(all("the last answer of the old connection"), each("r1", true));
    assert_eq!(all("a new connection"), each("r2", false));
    identity.remove("r1");
    assert_eq!(all("after the old leaf is gone"), each("r2", false));
    serve.stop();
}
