//! A reqwest client: one that is made anew when something is revoked.

use std::future::ready;

use keydir_hyper::{Generation, Swap};
use keydir_rustls::{Identity, TrustAnchors, client_config};
use reqwest::{RequestBuilder, Response};
use tower::util::AndThenLayer;

use crate::BoxError;

/// A client of HTTP/1 and HTTP/2, with a pool. Cheap to clone; clones share the pool.
#[derive(Clone, Debug)]
pub struct Client(Swap<(Generation, reqwest::Client), reqwest::Error>);

impl Client {
    /// Must be called from within a tokio runtime.
    ///
    /// # Errors
    /// If the TLS config, or the client, cannot be built.
    pub fn new(identity: &Identity, anchors: &TrustAnchors) -> Result<Self, BoxError> {
        let tls = client_config(anchors).identity(identity);
        let connector = tls.connector_with(|config| config.alpn_protocols = alpn())?;
        let swap = Swap::new(&connector, |generation| {
            let (config, begun) = ((*generation.config()).clone(), generation.clone());
            let check = move |io| ready(begun.stands().then_some(io).ok_or_else(|| "overtaken".into()));
            let builder = reqwest::Client::builder().connector_layer(AndThenLayer::new(check));
            Ok((generation.clone(), builder.tls_backend_preconfigured(config).build()?))
        })?;
        Ok(Self(swap))
    }

    /// Sends a request, which is put together by whichever client there is.
    ///
    /// # Errors
    /// As reqwest has them.
    pub async fn send(&self, request: impl Fn(&reqwest::Client) -> RequestBuilder) -> Result<Response, reqwest::Error> {
        loop {
            let (generation, client) = self.0.current()?;
            match request(&client).send().await {
                // Nothing was sent yet, and the next client goes by what is trusted now.
                Err(error) if error.is_connect() && !generation.stands() => {}
                answer => return answer,
            }
        }
    }
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}
