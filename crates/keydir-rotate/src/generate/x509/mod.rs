//! Certificates: authorities, what they issue, and what they take back.

mod ca;
mod certificate;
mod crl;
mod cross;
mod dates;
mod issue;
mod serial;
mod subject;

pub use ca::Ca;
pub use certificate::Certificate;
pub use crl::Revoked;
pub use issue::Issued;
pub use serial::Serial;
