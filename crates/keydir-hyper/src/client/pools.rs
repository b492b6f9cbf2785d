//! The pools of one generation: one for whoever is known to speak HTTP/2, which then takes one connection for all
//! requests that wait for it, and one for the rest, where ALPN decides for each connection.

use std::future::Future;
use std::pin::Pin;

use http::{Request, Uri};
use http_body::Body;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use tower_service::Service;

use super::connector::{HttpsConnector, Transport};
use super::generation::Generation;
use super::origins::Origins;
use super::swap::Ahead;
use crate::BoxError;

pub(super) struct Maker<H> {
    pool: Builder,
    http: H,
    plain: bool,
    origins: Origins,
}

pub(super) struct Pools<B, H: Service<Uri>> {
    https: HttpsConnector<H>,
    origins: Origins,
    by_alpn: Client<HttpsConnector<H>, B>,
    h2: Client<HttpsConnector<H>, B>,
}

impl<H: Transport> Maker<H> {
    pub(super) fn new(pool: Builder, http: H, plain: bool) -> Self {
        Self {
            pool,
            http,
            plain,
            origins: Origins::default(),
        }
    }

    pub(super) fn pools<B>(&self, generation: &Generation) -> Pools<B, H>
    where
        B: Body<Data: Send> + Send,
    {
        let origins = self.origins.next();
        let mut https = generation.https(self.http.clone()).with_origins(origins.clone());
        if self.plain {
            https = https.also_plain_http();
        }
        let mut h2 = self.pool.clone();
        Pools {
            by_alpn: self.pool.build(https.clone()),
            h2: h2.http2_only(true).build(https.clone().h2_only()),
            https,
            origins,
        }
    }
}

impl<B, H> Pools<B, H>
where
    B: Body<Data: Send, Error: Into<BoxError>> + Send + Unpin + 'static,
    H: Transport,
{
    pub(super) fn request(&self, request: Request<B>) -> ResponseFuture {
        match self.origins.speaks_h2(request.uri()) {
            true => self.h2.request(request),
            false => self.by_alpn.request(request),
        }
    }
}

/// Makes one connection to each server that the pools before are connected to. That also tells whether the servers take
/// what is presented now, as far as TLS tells.
pub(super) fn ahead<B, H>() -> Ahead<Pools<B, H>>
where
    B: 'static,
    H: Transport,
{
    Box::new(|before, next| {
        let authorities = before.origins.alive();
        let https = next.https.clone();
        let dials = async move {
            let mut last = Ok(());
            let mut connected = authorities.is_empty();
            for authority in &authorities {
                last = https.clone().dial_ahead(authority).await;
                connected |= last.is_ok();
            }
            // A server that is down keeps nobody from the others.
            if connected { Ok(()) } else { last }
        };
        Box::pin(dials) as Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>
    })
}

impl<B, H: Service<Uri> + Clone> Clone for Pools<B, H> {
    fn clone(&self) -> Self {
        Self {
            https: self.https.clone(),
            origins: self.origins.clone(),
            by_alpn: self.by_alpn.clone(),
            h2: self.h2.clone(),
        }
    }
}
