//! Three programs that verify chains, and CAs and leaves for them.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use keydir_rotate::generate::{Ca, CaProfile, Certificate, Issued, KeyAlgorithm, LeafProfile, LeafUsage};
use rustls::pki_types::{ServerName, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The kinds of keys that this build makes.
pub(crate) const ALGORITHMS: &[KeyAlgorithm] = &[
    KeyAlgorithm::Ed25519,
    KeyAlgorithm::EcdsaP256,
    KeyAlgorithm::EcdsaP384,
    #[cfg(feature = "aws-lc-rs")]
    KeyAlgorithm::Rsa { bits: 2048 },
];

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) fn ca(id: &str) -> Ca {
    Ca::create(&CaProfile::new("mesh", 90 * DAY), &id.parse().unwrap(), now()).unwrap()
}

/// A root that lets one stand below it, and that one.
pub(crate) fn root_and_issuing(algorithm: KeyAlgorithm) -> (Ca, Ca) {
    let mut profile = CaProfile::new("root", 365 * DAY);
    profile.path_len = Some(1);
    profile.algorithm = algorithm;
    let root = Ca::create(&profile, &"r1".parse().unwrap(), now()).unwrap();
    profile.name = "issuing".to_owned();
    profile.path_len = Some(0);
    profile.life = 90 * DAY;
    let issuing = root.issue_ca(&profile, &"r1".parse().unwrap(), now()).unwrap();
    (root, issuing)
}

/// For `a.example`, good for both ends.
pub(crate) fn profile() -> LeafProfile {
    let mut profile = LeafProfile::new([LeafUsage::Server, LeafUsage::Client], DAY);
    profile.dns = vec!["a.example".to_owned()];
    profile
}

pub(crate) fn leaf(ca: &Ca) -> Issued {
    ca.issue(&profile(), now()).unwrap()
}

/// Their certificates in one file, as anchors.
pub(crate) fn bundle(cas: &[&Ca]) -> String {
    cas.iter().map(|ca| ca.certificate().pem()).collect()
}

/// What a chain shall be good for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Server,
    Client,
}

/// Which host it shall be for; none: that is not looked at.
pub(crate) type Host<'a> = Option<&'a str>;

/// Refused by none of the three, for either end.
pub(crate) fn accepted(anchors: &str, crt: &str, host: Host<'_>) {
    for end in [End::Server, End::Client] {
        for (name, verify) in VERIFIERS {
            verify(anchors, crt, end, host).unwrap_or_else(|reason| panic!("{name} as {end:?}: {reason}"));
        }
    }
}

/// Accepted by none of the three.
pub(crate) fn refused(anchors: &str, crt: &str, end: End, host: Host<'_>) {
    for (name, verify) in VERIFIERS {
        assert!(verify(anchors, crt, end, host).is_err(), "{name} accepts it");
    }
}

type Verify = fn(&str, &str, End, Host<'_>) -> Result<(), String>;
const VERIFIERS: [(&str, Verify); 3] = [("openssl", openssl), ("gnutls", gnutls), ("webpki", webpki)];

/// At its strictest.
pub(crate) fn openssl(anchors: &str, crt: &str, end: End, host: Host<'_>) -> Result<(), String> {
    openssl_with(&[], anchors, crt, end, host)
}

pub(crate) fn openssl_with(options: &[&str], anchors: &str, crt: &str, end: End, host: Host<'_>) -> Result<(), String> {
    let folder = Folder::new();
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-purpose"]);
    command.arg(match end {
        End::Server => "sslserver",
        End::Client => "sslclient",
    });
    match host {
        Some(host) if host.parse::<std::net::IpAddr>().is_ok() => command.args(["-verify_ip", host]),
        Some(host) => command.args(["-verify_hostname", host]),
        None => &mut command,
    };
    command.arg("-CAfile").arg(folder.file("anchors", anchors));
    command.arg("-untrusted").arg(folder.file("chain", crt));
    run(command.args(options).arg(folder.file("leaf", crt)))
}

fn gnutls(anchors: &str, crt: &str, end: End, host: Host<'_>) -> Result<(), String> {
    let folder = Folder::new();
    let mut command = Command::new("certtool");
    command.arg("--verify");
    command
        .arg("--load-ca-certificate")
        .arg(folder.file("anchors", anchors));
    command.arg("--infile").arg(folder.file("chain", crt));
    command.arg(match end {
        End::Server => "--verify-purpose=1.3.6.1.5.5.7.3.1",
        End::Client => "--verify-purpose=1.3.6.1.5.5.7.3.2",
    });
    if let Some(host) = host {
        command.arg("--verify-hostname").arg(host);
    }
    run(&mut command)
}

fn webpki(anchors: &str, crt: &str, end: End, host: Host<'_>) -> Result<(), String> {
    let anchors = Certificate::all_from_pem(anchors.as_bytes()).unwrap();
    let anchors: Vec<_> = anchors.iter().map(|anchor| anchor.der().to_vec().into()).collect();
    let anchors: Vec<_> = anchors
        .iter()
        .map(|der| anchor_from_trusted_cert(der).unwrap())
        .collect();
    let chain = Certificate::all_from_pem(crt.as_bytes()).unwrap();
    let chain: Vec<_> = chain.iter().map(|one| one.der().to_vec().into()).collect();
    let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
    let usage = match end {
        End::Server => KeyUsage::server_auth(),
        End::Client => KeyUsage::client_auth(),
    };
    let since = now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = UnixTime::since_unix_epoch(since);
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &chain[1..],
        time,
        usage,
        None,
        None,
    )
    .map_err(|error| error.to_string())?;
    let name = host.map(|host| ServerName::try_from(host).unwrap());
    name.map_or(Ok(()), |name| leaf.verify_is_valid_for_subject_name(&name))
        .map_err(|error| error.to_string())
}

/// Where the programs find their files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// What it has written, if it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(String::from_utf8_lossy(&text).into_owned())
}

/// What it has printed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
