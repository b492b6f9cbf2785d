//! rustls's two verifiers, over what is trusted at the moment of the handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::admission::Admission;
use crate::anchor::Role;
use crate::hints::Hints;

/// Verifies clients.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    pub(crate) admission: Admission,
    pub(crate) hints: Arc<Hints>,
    pub(crate) mandatory: bool,
    /// Whether clients are told the names of the CAs.
    pub(crate) tells: bool,
}

/// Verifies servers.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    pub(crate) admission: Admission,
    pub(crate) hints: Arc<Hints>,
    pub(crate) asks: Asks,
}

/// What a client asks of servers, beside a chain to an anchor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asks {
    /// A certificate of a CA that the client trusts, by telling their names, in clear.
    pub(crate) hints: bool,
    /// The name that the client has called.
    pub(crate) name: bool,
}

fn chain<'a>(
    end_entity: &'a CertificateDer<'_>,
    intermediates: &'a [CertificateDer<'_>],
) -> impl Iterator<Item = &'a [u8]> + Clone {
    std::iter::once(end_entity).chain(intermediates).map(AsRef::as_ref)
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        let list = self.admission.live().load().whole().hints();
        self.hints.get(list.filter(|_| self.tells))
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admission.admits(chain(end_entity, intermediates), now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls12_signature(message, cert, dss, self.admission.judge.algorithms())?;
        self.admission.judge.still_vouches(Role::Client, cert)?;
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, cert, dss, self.admission.judge.algorithms())?;
        self.admission.judge.still_vouches(Role::Client, cert)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.admission.judge.algorithms().supported_schemes()
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admission.admits(chain(end_entity, intermediates), now)?;
        if self.asks.name {
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls12_signature(message, cert, dss, self.admission.judge.algorithms())?;
        self.admission.judge.still_vouches(Role::Server, cert)?;
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, cert, dss, self.admission.judge.algorithms())?;
        self.admission.judge.still_vouches(Role::Server, cert)?;
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.admission.judge.algorithms().supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        let list = self.admission.live().load().whole().hints()?;
        Some(self.hints.get(Some(list))).filter(|_| self.asks.hints)
    }
}
