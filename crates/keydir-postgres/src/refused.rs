//! Why a server did not let us in, as far as it concerns the credential.

use std::error::Error as _;

use keydir_rustls::rustls;
use rustls::AlertDescription;
use tokio_postgres::Error;

use crate::wire::AsksForPassword;

/// What a failed attempt to log in says of the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The credential is wrong, expired, or its role is missing or may not log in: SQLSTATE 28P01; 28000 by
    /// `auth_failed` or `InitializeSessionUserId`; or a TLS alert about our certificate. Another revision may do.
    Credential,
    /// The role may log in but not do what is needed: connect to the database (42501), or act as the role that was asked
    /// for (42501, 22023). Another revision may do, and somebody should look.
    Privilege,
    /// `pg_hba.conf` has no place for it (28000 by `ClientAuthentication`). Another revision may do; this one may be
    /// good all the same.
    Rule,
    /// An unverified server has asked for the password itself. Nothing more is sent to it.
    Impostor,
    /// It has nothing to do with the credential: capacity, network, a server that starts or stops.
    Other,
}

impl Refused {
    /// Reads an error of a login.
    pub fn by(error: &Error) -> Self {
        if let Some(error) = error.as_db_error() {
            return by_server(error.code().code(), error.routine().unwrap_or_default());
        }
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<AsksForPassword>() {
                return Self::Impostor;
            }
            if let Some(rustls::Error::AlertReceived(alert)) = error.downcast_ref() {
                return by_alert(*alert);
            }
            // What an `io::Error` wraps is not its source, but that one's source is.
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            cause = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        Self::Other
    }

    /// Whether another revision may be tried in this attempt. The refused one is left alone for a while then.
    pub fn may_fall_back(self) -> bool {
        matches!(self, Self::Credential | Self::Privilege | Self::Rule)
    }
}

fn by_server(code: &str, routine: &str) -> Refused {
    match (code, routine) {
        ("28P01", _) | ("28000", "auth_failed" | "InitializeSessionUserId") => Refused::Credential,
        ("42501" | "22023", _) => Refused::Privilege,
        ("28000", _) => Refused::Rule,
        _ => Refused::Other,
    }
}

/// Alerts by which OpenSSL, which PostgreSQL is built with, refuses a client's certificate (RFC 8446, 6.2).
fn by_alert(alert: AlertDescription) -> Refused {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown, UnknownCA,
        UnsupportedCertificate,
    };
    match alert {
        BadCertificate
        | CertificateExpired
        | CertificateRequired
        | CertificateRevoked
        | CertificateUnknown
        | UnknownCA
        | UnsupportedCertificate => Refused::Credential,
        _ => Refused::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_why() {
        for (code, routine, expected) in [
            ("28P01", "auth_failed", Refused::Credential),
            ("28000", "auth_failed", Refused::Credential),
            ("28000", "InitializeSessionUserId", Refused::Credential),
            ("28000", "ClientAuthentication", Refused::Rule),
            ("42501", "CheckMyDatabase", Refused::Privilege),
            ("42501", "call_string_check_hook", Refused::Privilege),
            ("22023", "call_string_check_hook", Refused::Privilege),
            ("53300", "InitializeSessionUserId", Refused::Other),
            ("53300", "InitPostgres", Refused::Other),
            ("57P03", "", Refused::Other),
            ("55000", "CheckMyDatabase", Refused::Other),
            ("3D000", "InitPostgres", Refused::Other),
        ] {
            assert_eq!(by_server(code, routine), expected, "{code} {routine}");
        }
    }

    #[test]
    fn alerts_about_our_certificate_are_about_the_credential() {
        assert_eq!(by_alert(AlertDescription::UnknownCA), Refused::Credential);
        assert_eq!(by_alert(AlertDescription::CertificateExpired), Refused::Credential);
        assert_eq!(by_alert(AlertDescription::HandshakeFailure), Refused::Other);
        assert_eq!(by_alert(AlertDescription::InternalError), Refused::Other);
    }
}
