//! A TCP proxy that holds connections back until the test lets them go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    gate: Arc<Semaphore>,
    arrived: Arc<AtomicUsize>,
}

impl Proxy {
    /// In front of this port.
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        tokio::spawn({
            let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
            async move {
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let gate = Arc::clone(&gate);
                    tokio::spawn(async move {
                        gate.acquire().await.unwrap().forget();
                        let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    });
                }
            }
        });
        Self { address, gate, arrived }
    }

    /// Lets so many connections through.
    pub(crate) fn let_through(&self, connections: usize) {
        self.gate.add_permits(connections);
    }

    /// How many connections have come, in all.
    pub(crate) fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }
}
