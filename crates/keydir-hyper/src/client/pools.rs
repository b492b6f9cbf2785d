//! The pools of one generation: one for whoever is known to speak HTTP/2, which then takes one connection for all
//! requests that wait for it, and one for the rest, where ALPN decides for each connection.

use std::time::Duration;

use http::{Request, Uri};
use http_body::Body;
use hyper_util::client::legacy::{Builder, Client, ResponseFuture};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_service::Service;

use super::connector::{HttpsConnector, Transport};
use super::generation::Generation;
use super::origins::Origins;
use super::shared::Ahead;
use crate::BoxError;

/// To dial ahead takes so long at most, and what was dialled waits so long for a request.
const AHEAD: Duration = Duration::from_secs(5);

pub(super) struct Maker<H> {
    pool: Builder,
    http: H,
    plain: bool,
    h2_only: bool,
    origins: Origins,
}

pub(super) struct Pools<B, H: Service<Uri>> {
    https: HttpsConnector<H>,
    origins: Origins,
    by_alpn: Client<HttpsConnector<H>, B>,
    h2: Client<HttpsConnector<H>, B>,
    /// Keeps no connections: each request has one of its own.
    unpooled: Client<HttpsConnector<H>, B>,
}

impl<H: Transport> Maker<H> {
    pub(super) fn new(mut pool: Builder, http: H, plain: bool, h2_only: bool) -> Self {
        if h2_only {
            pool.http2_only(true);
        }
        Self {
            pool,
            http,
            plain,
            h2_only,
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
        if self.h2_only {
            https = https.h2_only();
        }
        let (mut h2, mut unpooled) = (self.pool.clone(), self.pool.clone());
        Pools {
            by_alpn: self.pool.build(https.clone()),
            h2: h2.http2_only(true).build(https.clone().h2_only()),
            unpooled: unpooled.pool_max_idle_per_host(0).build(https.clone()),
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
    /// What fails on a connection of the pool may fail on all of them, since a server that goes away closes all at once.
    pub(super) fn request_unpooled(&self, request: Request<B>) -> ResponseFuture {
        self.unpooled.request(request)
    }

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
        Box::pin(async move {
            let mut connected = authorities.is_empty();
            let mut dials = JoinSet::new();
            for authority in authorities {
                dials.spawn(timeout(AHEAD, https.clone().dial_ahead(authority)));
            }
            let mut failed = None;
            while let Some(dialled) = dials.join_next().await {
                match dialled {
                    Ok(Ok(Ok(()))) => connected = true,
                    Ok(Ok(Err(error))) => failed = Some(error),
                    Ok(Err(error)) => failed = Some(error.into()),
                    Err(error) => failed = Some(error.into()),
                }
            }
            https.close_ready_after(AHEAD);
            // A server that is down keeps nobody from the others.
            failed.filter(|_| !connected).map_or(Ok(()), Err)
        })
    })
}
