//! TLS that verifies nothing of the server, for the `sslmode`s `prefer` and `require`: it keeps out who only listens.

use std::sync::Arc;

use keydir_rustls::BuildError;
use keydir_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use keydir_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use keydir_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use keydir_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

pub(crate) fn config(
    provider: Arc<CryptoProvider>,
    adjust: impl FnOnce(&mut ClientConfig),
) -> Result<ClientConfig, BuildError> {
    let verifier = Arc::new(Anybody(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(BuildError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    adjust(&mut config);
    Ok(config)
}

/// Lets in anybody who holds the key of the certificate that is shown.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
