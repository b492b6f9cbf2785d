//! Out of file descriptors. The server is this test again, in a process that may have few.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::client::{get1, h1, text, tls};
use crate::scene::{LONG, Scene, Seen, about, soon, start};

const SERVER: &str = "KEYDIR_TEST_FEW_DESCRIPTORS";
const MANY: usize = 60;

#[test]
fn a_server_without_descriptors_waits_and_goes_on() {
    if std::env::var_os(SERVER).is_some() {
        return server();
    }
    let mut few = Command::new("sh")
        .args(["-c", "ulimit -n 40 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "descriptors::a_server_without_descriptors_waits_and_goes_on",
            "--nocapture",
        ])
        .env(SERVER, "")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(few.stdout.take().unwrap());
    let mut line = String::new();
    let port = loop {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the server has ended");
        if let Some((_, port)) = line.split_once("listening ") {
            break port.trim().parse().unwrap();
        }
    };
    let clients: Vec<_> = (0..MANY)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(few.wait().unwrap().success(), "{rest}");
    assert!(rest.contains("cannot accept a connection"), "{rest}");
    drop(clients);
}

/// Serves a client after all the silent ones.
fn server() {
    tracing_subscriber::fmt().init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let scene = Scene::new();
        let seen = Arc::new(Seen::default());
        let acceptor = scene.acceptor(LONG).with_timeout(Duration::from_secs(2));
        let server = start(&acceptor, about(&seen), |server| server).await;
        println!("listening {}", server.address.port());
        let config = scene.client(&scene.c1, &["http/1.1"]);
        while few_are_open() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // No socket for a client either, until the silent ones are given up.
        let connected = async {
            while tls(&config, server.address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(connected).await;
        let mut client = h1(&config, server.address).await;
        let response = soon(client.send.send_request(get1("/"))).await.unwrap();
        assert_eq!(text(response).await, "r1 c1");
    });
}

/// Asking needs a descriptor too.
fn few_are_open() -> bool {
    std::fs::read_dir("/proc/self/fd").is_ok()
}
