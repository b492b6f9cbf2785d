//! The tonic server with a gRPC client that is none of ours: Python's, over gRPC's C core.

use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use keydir_integration::{Ca, Program, folder_in_memory, tool};

use crate::scene::{Scene, eventually, uses};

const SCRIPT: &str = r#"
import sys
import grpc

def read(name):
    with open(name, "rb") as file:
        return file.read()

def strings(message):
    """The fields of a message that has nothing but short strings."""
    found = []
    while message:
        end = 2 + message[1]
        found.append(message[2:end].decode())
        message = message[end:]
    return found

credentials = grpc.ssl_channel_credentials(read("roots.pem"), read("client.key"), read("client.crt"))
options = [("grpc.enable_http_proxy", 0)]
answered, last = 0, None
with grpc.secure_channel("127.0.0.1:" + sys.argv[1], credentials, options) as channel:
    ask = channel.unary_unary("/hosts.Whoami/Ask")
    while True:
        try:
            answer = strings(ask(b"", timeout=20))
        except grpc.RpcError as error:
            print(error.code().name, "after", answered, flush=True)
            break
        answered += 1
        if answer != last:
            print(*answer, flush=True)
            last = answer
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_goes_on_across_a_rotation_of_the_server() {
    let mut scene = Scene::new();
    let uri = super::tonic::serve(&scene, Duration::from_millis(100)).await;
    let files = folder_in_memory();
    let first = Ca::pem(&scene.ca);
    let client = scene.ca.leaf("python");
    scene.stage();
    let both = first + &scene.ca.pem();
    for (name, content) in [
        ("roots.pem", both),
        ("client.crt", client.crt),
        ("client.key", client.key),
    ] {
        fs::write(files.path().join(name), content).unwrap();
    }
    let script = files.path().join("client.py");
    fs::write(&script, SCRIPT).unwrap();

    let mut command = tool("/usr/bin/python3", "python3-grpcio");
    command.arg(&script).arg(uri.port().unwrap().as_str());
    let python = Program::start(command.current_dir(files.path()));
    assert_eq!(python.line().unwrap(), "r1 CN=python");
    scene.promote();
    assert_eq!(python.line().unwrap(), "r2 CN=python");
    eventually("nothing rests on r1", || uses(scene.server.identity.live(), "r1") == 0).await;
    scene.server.retire(1);
    let served = || scene.served.load(SeqCst);
    let before = served();
    eventually("it goes on", || served() > before + 100).await;
    // It ends with the first call that fails.
    scene.server.distrust(1);
    let refused = python.line().unwrap();
    assert_eq!(refused, format!("UNAVAILABLE after {}", scene.served.load(SeqCst)));
    assert_eq!(python.end().code, Some(0));
}
