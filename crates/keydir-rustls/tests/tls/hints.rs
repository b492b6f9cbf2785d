//! Each side tells the other which CAs it knows.

use std::sync::{Arc, Mutex};

use keydir_rustls::{client_config, server_config};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};

use crate::support::*;

type Seen = Mutex<Vec<Option<usize>>>;

#[derive(Debug)]
struct AsServer(Arc<dyn ResolvesServerCert>, Arc<Seen>);

impl ResolvesServerCert for AsServer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names = hello.certificate_authorities().map(<[_]>::len);
        self.1.lock().unwrap().push(names);
        self.0.resolve(hello)
    }
}

#[derive(Debug)]
struct AsClient(Arc<dyn ResolvesClientCert>, Arc<Seen>);

impl ResolvesClientCert for AsClient {
    fn resolve(&self, names: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.1.lock().unwrap().push(Some(names.len()));
        self.0.resolve(names, schemes)
    }
    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn the_names_of_today_are_told() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let mut client = (*scene.client(&scene.c2, WAYS[0])).clone();
    client.client_auth_cert_resolver = Arc::new(AsClient(client.client_auth_cert_resolver, Arc::clone(&seen)));
    client.resumption = rustls::client::Resumption::disabled();
    let client = Arc::new(client);
    let server = scene.server(WAYS[0]);
    assert_eq!(connect(&client, &server), End::Full);
    scene.remove_c1();
    assert_eq!(connect(&client, &server), End::Full);
    assert_eq!(*seen.lock().unwrap(), [Some(2), Some(1)]);
}

#[test]
fn a_client_tells_them_too_unless_it_is_told_not_to() {
    let scene = Scene::new();
    let seen = Arc::new(Seen::default());
    let mut server: ServerConfig = server_config(&scene.server_identity).no_client().build().unwrap();
    server.cert_resolver = Arc::new(AsServer(server.cert_resolver, Arc::clone(&seen)));
    let server = Arc::new(server);
    let tells = client_config(&scene.server_ca);
    for client in [tells.clone(), tells.without_hints()] {
        let client = Arc::new(client.build().unwrap());
        assert_eq!(connect(&client, &server), End::Full);
    }
    assert_eq!(*seen.lock().unwrap(), [Some(1), None]);
}
