//! Who follows a directory: keydir, a loop over bare inotify, and the peers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arc_swap::ArcSwap;
use inotify::{Inotify, WatchMask};
use keydir_rustls::Identity;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::kubelet::{Files, Kubelet};
use crate::pki::Leaf;

/// Something that shows, sooner or later, what was published in its directory.
pub(crate) trait Subject {
    fn name(&self) -> &'static str;

    /// How a leaf is published for it.
    fn files(&self, _publication: usize, leaf: &Leaf) -> Files {
        pair(leaf)
    }

    /// For those that do not watch: now.
    fn pull(&self) {}

    /// Whether the leaf that was published last is what it would present.
    fn shows(&self, leaf: &CertificateDer<'_>) -> bool;
}

const CRT: &str = "tls.crt";
const KEY: &str = "tls.key";

fn pair(leaf: &Leaf) -> Files {
    vec![(CRT.to_owned(), leaf.crt.clone()), (KEY.to_owned(), leaf.key.clone())]
}

/// Each with a directory of its own, which holds `leaf`.
pub(crate) fn all(leaf: &Leaf) -> Vec<(Box<dyn Subject>, Kubelet)> {
    fn with<S: Subject + 'static>(files: &Files, start: impl FnOnce(&Path) -> S) -> (Box<dyn Subject>, Kubelet) {
        let kubelet = Kubelet::with(files);
        (Box::new(start(kubelet.path())), kubelet)
    }
    let plain = pair(leaf);
    let subjects = vec![
        with(&ours(0, leaf), |path| Ours(Identity::open(path).unwrap())),
        with(&plain, Raw::start),
        with(&plain, Callback::start),
    ];
    #[cfg(feature = "peers")]
    let subjects = {
        let mut subjects = subjects;
        subjects.push(with(&plain, peers::Hot::start));
        subjects.push(with(&plain, peers::Resolver::start));
        subjects.push(with(&plain, peers::AxumServer::start));
        subjects
    };
    subjects
}

struct Ours(Identity);

/// A rotation: each publication is another revision.
fn ours(publication: usize, leaf: &Leaf) -> Files {
    vec![
        (format!("r{publication}.crt.primary"), leaf.crt.clone()),
        (format!("r{publication}.key"), leaf.key.clone()),
    ]
}

impl Subject for Ours {
    fn name(&self) -> &'static str {
        "keydir"
    }

    fn files(&self, publication: usize, leaf: &Leaf) -> Files {
        ours(publication, leaf)
    }

    fn shows(&self, leaf: &CertificateDer<'_>) -> bool {
        let set = self.0.live().load();
        set.primary().is_ok_and(|key| key.certificates().first() == Some(leaf))
    }
}

/// What the plain library makes of the two files.
pub(crate) fn read_pair(crt: &Path, key: &Path) -> CertifiedKey {
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let chain: Result<_, _> = CertificateDer::pem_file_iter(crt).unwrap().collect();
    let provider = CryptoProvider::get_default().unwrap();
    // It compares key and certificate, too.
    CertifiedKey::from_der(chain.unwrap(), key, provider).unwrap()
}

/// The least that can be done: wait for the rename, read both files, parse them.
struct Raw(Arc<ArcSwap<CertifiedKey>>);

impl Raw {
    fn start(path: &Path) -> Self {
        let [crt, key] = [CRT, KEY].map(|name| path.join("..data").join(name));
        let current = Arc::new(ArcSwap::from_pointee(read_pair(&crt, &key)));
        let mut inotify = Inotify::init().unwrap();
        inotify.watches().add(path, WatchMask::MOVED_TO).unwrap();
        let shown = Arc::clone(&current);
        // Ends with the process.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let events = inotify.read_events_blocking(&mut buffer).unwrap();
                if events
                    .into_iter()
                    .any(|event| event.name.is_some_and(|name| name == "..data"))
                {
                    shown.store(Arc::new(read_pair(&crt, &key)));
                }
            }
        });
        Self(current)
    }
}

impl Subject for Raw {
    fn name(&self) -> &'static str {
        "inotify, read, parse"
    }

    fn shows(&self, leaf: &CertificateDer<'_>) -> bool {
        self.0.load().cert.first() == Some(leaf)
    }
}

/// notify's callback alone; nothing is read.
struct Callback {
    _watcher: RecommendedWatcher,
    called: Arc<AtomicBool>,
}

impl Callback {
    fn start(path: &Path) -> Self {
        let called = Arc::new(AtomicBool::new(false));
        let (calls, data): (_, PathBuf) = (Arc::clone(&called), path.join("..data"));
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let event = event.unwrap();
            if matches!(event.kind, EventKind::Modify(_)) && event.paths.contains(&data) {
                calls.store(true, Ordering::Release);
            }
        })
        .unwrap();
        watcher.watch(path, RecursiveMode::NonRecursive).unwrap();
        Self {
            _watcher: watcher,
            called,
        }
    }
}

impl Subject for Callback {
    fn name(&self) -> &'static str {
        "notify's callback alone"
    }

    fn shows(&self, _: &CertificateDer<'_>) -> bool {
        self.called.swap(false, Ordering::Acquire)
    }
}

#[cfg(feature = "peers")]
mod peers {
    //! The crates that do the same for rustls.

    use axum_server::tls_rustls::RustlsConfig;
    use rustls_cert_file_reader::{FileReader, Format};
    use rustls_cert_reloadable_resolver::key_provider::FromCrypto;
    use rustls_cert_reloadable_resolver::{CertifiedKeyLoader, ReloadableResolver};
    use tls_hot_reload::CertifiedKeyWatched;
    use tokio::runtime::Runtime;

    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    }

    fn paths(path: &Path) -> [String; 2] {
        [CRT, KEY].map(|name| path.join(name).to_str().unwrap().to_owned())
    }

    pub(super) struct Hot {
        key: Arc<CertifiedKeyWatched>,
        _runtime: Runtime,
    }

    impl Hot {
        pub(super) fn start(path: &Path) -> Self {
            let ([crt, key], runtime) = (paths(path), runtime());
            let key = runtime.block_on(CertifiedKeyWatched::new(key, crt)).unwrap();
            Self { key, _runtime: runtime }
        }
    }

    impl Subject for Hot {
        fn name(&self) -> &'static str {
            "tls-hot-reload"
        }

        fn shows(&self, leaf: &CertificateDer<'_>) -> bool {
            self.key.cloned().cert.first() == Some(leaf)
        }
    }

    type Loader = CertifiedKeyLoader<
        FromCrypto<Arc<CryptoProvider>>,
        FileReader<PrivateKeyDer<'static>>,
        FileReader<Vec<CertificateDer<'static>>>,
    >;

    /// It has no watcher: it is told to reload right after the rename.
    pub(super) struct Resolver {
        resolver: ReloadableResolver<Loader>,
        runtime: Runtime,
    }

    impl Resolver {
        pub(super) fn start(path: &Path) -> Self {
            let ([crt, key], runtime) = (paths(path), runtime());
            let loader = CertifiedKeyLoader {
                key_provider: FromCrypto(Arc::clone(CryptoProvider::get_default().unwrap())),
                key_reader: FileReader::new(key, Format::PEM),
                certs_reader: FileReader::new(crt, Format::PEM),
            };
            let resolver = runtime.block_on(ReloadableResolver::init(loader)).unwrap();
            Self { resolver, runtime }
        }
    }

    impl Subject for Resolver {
        fn name(&self) -> &'static str {
            "rustls-cert-reloadable-resolver, told to reload"
        }

        fn pull(&self) {
            self.runtime.block_on(self.resolver.reload()).unwrap();
        }

        fn shows(&self, leaf: &CertificateDer<'_>) -> bool {
            self.resolver.get().cert.first() == Some(leaf)
        }
    }

    /// Nor has this one; a reload makes a whole new config.
    pub(super) struct AxumServer {
        config: RustlsConfig,
        paths: [String; 2],
        runtime: Runtime,
    }

    impl AxumServer {
        pub(super) fn start(path: &Path) -> Self {
            let (paths, runtime) = (paths(path), runtime());
            let [crt, key] = &paths;
            let config = runtime.block_on(RustlsConfig::from_pem_file(crt, key)).unwrap();
            Self { config, paths, runtime }
        }
    }

    impl Subject for AxumServer {
        fn name(&self) -> &'static str {
            "axum-server, told to reload"
        }

        fn pull(&self) {
            let [crt, key] = &self.paths;
            self.runtime
                .block_on(self.config.reload_from_pem_file(crt, key))
                .unwrap();
        }

        /// What lies in a config, nobody can see; when the call has returned, it is in use.
        fn shows(&self, _: &CertificateDer<'_>) -> bool {
            true
        }
    }
}
