//! The roots that this host trusts by default, read once.

use std::sync::Arc;

use rustls_native_certs::load_native_certs;

use crate::anchor::Anchor;
use crate::error::NoPlatformRoots;

/// The CA certificates among them; what is none is left out, as others do.
pub(crate) fn roots() -> Result<Vec<Arc<Anchor>>, NoPlatformRoots> {
    let found = load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of the platform's root certificates cannot be read");
    }
    let mut roots = Vec::new();
    for der in found.certs {
        match Anchor::read(der) {
            Ok(root) => roots.push(Arc::new(root)),
            Err(error) => tracing::debug!(%error, "a certificate among the platform's roots is left out"),
        }
    }
    if roots.is_empty() {
        let reason = found.errors.first().map(ToString::to_string);
        return Err(NoPlatformRoots(reason.unwrap_or_else(|| "none was found".to_owned())));
    }
    tracing::info!(roots = roots.len(), "the platform's roots are trusted too");
    Ok(roots)
}
