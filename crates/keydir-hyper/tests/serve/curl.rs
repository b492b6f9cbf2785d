//! curl with a client certificate.

use std::process::Command;
use std::sync::Arc;

use crate::ca::Ca;
use crate::scene::{LONG, Scene, Seen, about, start};

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_both() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let server = start(&scene.acceptor(LONG), about(&seen), |server| server).await;
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
    write("ca.pem", &scene.servers.pem);
    let client = |ca: &Ca| {
        let leaf = ca.issue("curl", |_| {});
        write("crt.pem", &leaf.crt);
        write("key.pem", &leaf.key);
    };
    // Each asks twice, on one connection.
    let curl = async |version: &str| {
        let url = format!("https://localhost:{}/", server.address.port());
        let mut curl = Command::new("curl");
        curl.current_dir(files.path())
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--ipv4",
                "--noproxy",
                "*",
            ])
            .args([version, "--cacert", "ca.pem", "--cert", "crt.pem", "--key", "key.pem"])
            .args(["--write-out", " %{http_version} %{num_connects}\n", &url, &url]);
        let output = tokio::task::spawn_blocking(move || curl.output().expect("curl is installed"));
        let output = output.await.unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    client(&scene.c1);
    assert_eq!(curl("--http1.1").await, "r1 c1 1.1 1\nr1 c1 1.1 0\n");
    assert_eq!(curl("--http2").await, "r1 c1 2 1\nr1 c1 2 0\n");
    scene.promote();
    assert_eq!(curl("--http2").await, "r2 c1 2 1\nr2 c1 2 0\n");
    scene.remove_c1();
    let refused = curl("--http1.1").await;
    assert!(refused.contains("curl: (56)"), "{refused}");
    client(&scene.c2);
    assert_eq!(curl("--http1.1").await, "r2 c2 1.1 1\nr2 c2 1.1 0\n");
}
