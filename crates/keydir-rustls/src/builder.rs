//! Opening trust anchors, with what can be asked for beside a directory.

use std::path::Path;
use std::sync::Arc;

use keydir::Dir;
use rustls::crypto::CryptoProvider;

use crate::anchors::TrustAnchors;
use crate::error::OpenError;
#[cfg(feature = "platform-roots")]
use crate::platform;
use crate::provider::provider;
use crate::revocation::RevocationPolicy;
use crate::view::{Kind, Options};

impl TrustAnchors {
    /// Opens a directory of CA certificates and follows it.
    ///
    /// # Errors
    /// If the directory cannot be read, holds no CA that counts today, or no cryptography is there.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::in_dir(&Dir::open(path)?)
    }

    /// The CA certificates in a directory that is open already, perhaps for other uses too.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_dir(dir: &Dir) -> Result<Self, OpenError> {
        Self::builder(dir).build()
    }

    /// Opens a directory of pinned certificates: each revision is exactly one, and a peer is accepted if it presents
    /// that one, byte for byte, inside its validity. A server's name is checked too. Issuers, signatures, purposes and
    /// CRLs of the certificate are not: this is for self-signed ones.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn pinned(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::pinned_in_dir(&Dir::open(path)?)
    }

    /// The pinned certificates in a directory that is open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn pinned_in_dir(dir: &Dir) -> Result<Self, OpenError> {
        Self::builder(dir).pinned().build()
    }

    /// Begins with a directory that is open already, where something beside its anchors is asked for.
    ///
    /// ```no_run
    /// use keydir_rustls::{RevocationPolicy, TrustAnchors};
    ///
    /// let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// let anchors = TrustAnchors::builder(&dir)
    ///     .revocation(RevocationPolicy::new().enforce_expiry())
    ///     .refuse_cross_signed()
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(dir: &Dir) -> AnchorsBuilder {
        AnchorsBuilder {
            dir: dir.clone(),
            kind: Kind::Anchors,
            provider: None,
            revocation: RevocationPolicy::new(),
            refuse_cross_signed: false,
            #[cfg(feature = "platform-roots")]
            platform_roots: false,
        }
    }
}

/// Trust anchors that can be built. Made by [`TrustAnchors::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is built"]
pub struct AnchorsBuilder {
    dir: Dir,
    kind: Kind,
    provider: Option<Arc<CryptoProvider>>,
    revocation: RevocationPolicy,
    refuse_cross_signed: bool,
    #[cfg(feature = "platform-roots")]
    platform_roots: bool,
}

impl AnchorsBuilder {
    /// The cryptography of your choice, to verify certificates, CRLs and handshakes, and of the client configs that are
    /// built on these anchors. Without this it is what the process has installed, or what the features bring.
    ///
    /// ```no_run
    /// # let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// # let provider = keydir_rustls::rustls::crypto::CryptoProvider::get_default().unwrap().clone();
    /// let anchors = keydir_rustls::TrustAnchors::builder(&dir).with_provider(provider).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_provider(mut self, provider: Arc<CryptoProvider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Reads the directory as [pinned certificates](TrustAnchors::pinned) in place of CAs.
    ///
    /// ```no_run
    /// # let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// let pins = keydir_rustls::TrustAnchors::builder(&dir).pinned().build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pinned(mut self) -> Self {
        self.kind = Kind::Pinned;
        self
    }

    /// What CRLs decide where they say nothing, or are old; see [`RevocationPolicy`].
    ///
    /// ```no_run
    /// # use keydir_rustls::{RevocationPolicy, TrustAnchors};
    /// # let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// let anchors = TrustAnchors::builder(&dir).revocation(RevocationPolicy::new().deny_unknown()).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revocation(mut self, policy: RevocationPolicy) -> Self {
        self.revocation = policy;
        self
    }

    /// Refuses peers whose chain leads through the key of a CA that was removed since the start: such a chain exists if
    /// a CA that stays has signed the other's key (a cross certificate). Without this they are let in, and an event
    /// tells of each such certificate once. A CA that was removed before the start is not known, nor one that was
    /// signed under a new key.
    ///
    /// ```no_run
    /// # let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// let anchors = keydir_rustls::TrustAnchors::builder(&dir).refuse_cross_signed().build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn refuse_cross_signed(mut self) -> Self {
        self.refuse_cross_signed = true;
        self
    }

    /// Trusts the platform's roots too, those that programs of this host trust by default: for a client that calls its
    /// own services and the public web. They are read once, when this is built, count inside their validity, and never
    /// stand among the names that peers are told. A peer that one of them vouches for has no revision. With the feature
    /// `platform-roots`.
    ///
    /// Think twice before servers trust *clients* so: any public CA can make one up.
    ///
    /// ```no_run
    /// # let dir = keydir::Dir::open("/run/secrets/mesh-ca")?;
    /// let anchors = keydir_rustls::TrustAnchors::builder(&dir).platform_roots().build()?;
    /// let client = keydir_rustls::client_config(&anchors).build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "platform-roots")]
    pub fn platform_roots(mut self) -> Self {
        self.platform_roots = true;
        self
    }

    /// Opens the anchors and follows the directory.
    ///
    /// # Errors
    /// If the directory cannot be read or holds nothing that counts today, if no cryptography is there, or if the
    /// platform's roots were asked for and there are none.
    pub fn build(self) -> Result<TrustAnchors, OpenError> {
        let provider = self.provider.map_or_else(provider, Ok)?;
        let options = Options {
            algorithms: Some(provider.signature_verification_algorithms.all),
            revocation: self.revocation,
            refuse_cross_signed: self.refuse_cross_signed,
            #[cfg(feature = "platform-roots")]
            roots: if self.platform_roots {
                platform::roots()?
            } else {
                Vec::new()
            },
            #[cfg(not(feature = "platform-roots"))]
            roots: Vec::new(),
        };
        Ok(TrustAnchors::new(self.kind, &self.dir, provider, options)?)
    }
}
