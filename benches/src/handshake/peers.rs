//! What the peers put into a server's config. They follow an identity; of trust, sessions and clients they know nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::ResolvesServerCert;
use rustls_cert_file_reader::{FileReader, Format};
use rustls_cert_reloadable_resolver::key_provider::FromCrypto;
use rustls_cert_reloadable_resolver::{CertifiedKeyLoader, ReloadableResolver};
use tls_hot_reload::CertifiedKeyWatched;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

pub(super) fn tls_hot_reload([crt, key]: [PathBuf; 2]) -> Arc<dyn ResolvesServerCert> {
    if CryptoProvider::get_default().is_none() {
        default_provider().install_default().unwrap();
    }
    let [crt, key] = [crt, key].map(|path| path.to_str().unwrap().to_owned());
    // Each takes one of the few inotify instances of the machine, which others use too.
    let mut left = 60;
    loop {
        match block_on(CertifiedKeyWatched::new(&*key, &*crt)) {
            Ok(resolver) => return resolver,
            Err(error) => assert!(left > 0, "{error:?}"),
        }
        left -= 1;
        thread::sleep(Duration::from_secs(1));
    }
}

pub(super) fn reloadable_resolver([crt, key]: [PathBuf; 2]) -> Arc<dyn ResolvesServerCert> {
    let loader = CertifiedKeyLoader {
        key_provider: FromCrypto(Arc::new(default_provider())),
        key_reader: FileReader::new(key, Format::PEM),
        certs_reader: FileReader::new(crt, Format::PEM),
    };
    Arc::new(block_on(ReloadableResolver::init(loader)).unwrap())
}
