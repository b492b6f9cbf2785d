//! A connect of reqwest that a removal overtakes. Only with TLS 1.2 there is a time to do it in: a round trip lies between
//! the client's certificate and the end of its handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use http::{Request, Uri};
use keydir_hosts::BoxError;
use keydir_hosts::reqwest_client::Client;
use keydir_hyper::Swap;
use keydir_rustls::rustls::version::TLS12;
use keydir_rustls::{client_config, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::service_fn;

use crate::hyper::whoami;
use crate::reqwest::get;
use crate::scene::{Scene, eventually};

/// Stands between client and server, and keeps the end of the first handshake back.
#[derive(Default)]
struct Proxy {
    connections: AtomicUsize,
    /// The client has shown its certificate.
    shown: AtomicBool,
}

/// A server of TLS 1.2 behind a proxy.
async fn serve(scene: &Scene) -> (Uri, Arc<Proxy>, Arc<Semaphore>) {
    let acceptor = server_config(&scene.server.identity).require_client(&scene.server.anchors);
    let acceptor = acceptor.alpn(["http/1.1"]).versions(&[&TLS12]).acceptor().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let served = Arc::clone(&scene.served);
    let whoami = service_fn(move |request: Request<_>| {
        let answer = whoami(&served, &request);
        async move { Ok::<_, BoxError>(answer) }
    });
    tokio::spawn(keydir_hyper::serve(listener, acceptor, whoami));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let (proxy, released) = (Arc::<Proxy>::default(), Arc::new(Semaphore::new(0)));
    let (this, release) = (Arc::clone(&proxy), Arc::clone(&released));
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(server).await.unwrap();
            let is_first = this.connections.fetch_add(1, SeqCst) == 0;
            let (proxy, release) = (Arc::clone(&this), Arc::clone(&release));
            tokio::spawn(async move { proxy.forward(client, server, is_first.then_some(&release)).await });
        }
    });
    (uri.parse().unwrap(), proxy, released)
}

impl Proxy {
    async fn forward(&self, client: TcpStream, server: TcpStream, release: Option<&Semaphore>) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let answered = AtomicBool::new(false);
        let up = async {
            let mut bytes = [0; 16 * 1024];
            while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
                // Before the server's answer it is the ClientHello.
                if answered.load(SeqCst) && release.is_some() {
                    self.shown.store(true, SeqCst);
                }
                if to_server.write_all(&bytes[..n]).await.is_err() {
                    break;
                }
            }
            let _ = to_server.shutdown().await;
        };
        let down = async {
            let mut bytes = [0; 16 * 1024];
            while let Ok(n @ 1..) = from_server.read(&mut bytes).await {
                answered.store(true, SeqCst);
                if let Some(release) = release
                    && self.shown.load(SeqCst)
                {
                    // The permit stays there for what follows.
                    drop(release.acquire().await.unwrap());
                }
                if to_client.write_all(&bytes[..n]).await.is_err() {
                    break;
                }
            }
            let _ = to_client.shutdown().await;
        };
        tokio::join!(up, down);
    }
}

/// Who a request was from that began before the removal, on a connect that ended after it.
async fn overtaken<F>(scene: &mut Scene, proxy: &Proxy, released: &Semaphore, first: F) -> String
where
    F: Future<Output = String> + Send + 'static,
{
    let first = tokio::spawn(first);
    eventually("the client has shown its certificate", || proxy.shown.load(SeqCst)).await;
    scene.stage();
    scene.promote();
    scene.client.retire(1);
    released.add_permits(1);
    first.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn such_a_connect_carries_nothing() {
    let mut scene = Scene::new();
    let (uri, proxy, released) = serve(&scene).await;
    let client = Client::new(&scene.client.identity, &scene.client.anchors).unwrap();
    let (first, at) = (client.clone(), uri.clone());
    let first = async move { get(&first, &at).await.unwrap() };
    let answer = overtaken(&mut scene, &proxy, &released, first).await;
    assert_eq!(answer, "r2 CN=r2");
    assert_eq!(get(&client, &uri).await.unwrap(), "r2 CN=r2");
    assert_eq!(proxy.connections.load(SeqCst), 2);
}

/// What the layer is for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_layer_it_carries_the_request_that_waits_for_it_and_no_later_one() {
    let mut scene = Scene::new();
    let (uri, proxy, released) = serve(&scene).await;
    let connector = client_config(&scene.client.anchors).identity(&scene.client.identity);
    let swap = Swap::new(&connector.connector().unwrap(), |generation| {
        let config = (*generation.config()).clone();
        reqwest::Client::builder().tls_backend_preconfigured(config).build()
    });
    let swap = swap.unwrap();
    let ask = move |client: reqwest::Client| {
        let request = client.get(uri.to_string());
        async move { request.send().await.unwrap().text().await.unwrap() }
    };
    let first = ask(swap.current().unwrap());
    let answer = overtaken(&mut scene, &proxy, &released, first).await;
    assert_eq!(answer, "r1 CN=r1");
    assert_eq!(ask(swap.current().unwrap()).await, "r2 CN=r2");
}
