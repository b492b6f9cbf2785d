//! Running the program, and making what it is run on. Every output is searched for the secrets that were made.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_keydir");
/// Stands in every text secret of these tests.
pub(crate) const CANARY: &str = "canary-keydir-cli-5f1d";
const DAY: u64 = 86_400;

static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A text that must never be printed.
pub(crate) fn secret(name: &str) -> String {
    static TOLD: OnceLock<()> = OnceLock::new();
    TOLD.get_or_init(|| {
        SECRETS.lock().unwrap().push(CANARY.to_owned());
        // For the search over the output of all tests (`cargo xtask test`).
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/canaries");
        if !fs::read_to_string(&list)
            .unwrap_or_default()
            .lines()
            .any(|line| line == CANARY)
        {
            let file = fs::OpenOptions::new().append(true).create(true).open(list);
            if let Ok(mut file) = file {
                let _ = writeln!(file, "{CANARY}");
            }
        }
    });
    format!("{CANARY}-{name}")
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code is this, and each of the texts stands in the output.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let all = format!("{}{}", self.out, self.err);
        for text in texts {
            assert!(all.contains(text), "no {text:?} in {self:?}");
        }
    }
}

/// Runs the program to its end.
#[track_caller]
pub(crate) fn keydir<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Run {
    finish(Command::new(BINARY).args(args).stdin(Stdio::null()).output().unwrap())
}

#[track_caller]
pub(crate) fn with_stdin(args: &[&str], input: &[u8]) -> Run {
    let mut command = Command::new(BINARY);
    let child = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    // The program may end without reading it.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child.wait_with_output().unwrap())
}

/// Runs the program as somebody whom modes concern, also where the tests run as root.
#[track_caller]
pub(crate) fn unprivileged(args: &[&str]) -> Run {
    static COPY: OnceLock<tempfile::TempDir> = OnceLock::new();
    let copy = COPY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(BINARY, dir.path().join("keydir")).unwrap();
        dir
    });
    let mut command = Command::new(copy.path().join("keydir"));
    if rustix::process::getuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    finish(command.args(args).stdin(Stdio::null()).output().unwrap())
}

#[track_caller]
pub(crate) fn finish(output: Output) -> Run {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let run = Run {
        code: output.status.code().unwrap_or(-1),
        out: text(output.stdout),
        err: text(output.stderr),
    };
    println!("{}{}", run.out, run.err);
    assert_no_secret(&run.out);
    assert_no_secret(&run.err);
    assert!(!run.out.contains('\t') && !run.out.contains('\u{1b}'), "{run:?}");
    assert!(!run.err.contains("panicked"), "{run:?}");
    run
}

#[track_caller]
pub(crate) fn assert_no_secret(text: &str) {
    // Not under the lock: a panic would poison it for all other tests.
    let found = SECRETS
        .lock()
        .unwrap()
        .iter()
        .any(|secret| text.contains(secret.as_str()));
    assert!(!found, "a secret was printed");
}

/// A directory with files in it.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        // As `mktemp -d`, but to be entered by the unprivileged.
        tree.mode("", 0o755);
        for (name, content) in files {
            tree.write(name, content);
        }
        tree
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub(crate) fn join(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        self.mode(name, 0o600);
        path
    }

    pub(crate) fn link(&self, name: &str, target: &str) {
        symlink(target, self.path().join(name)).unwrap();
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The names of the published set, `.rotation.json` not among them.
    pub(crate) fn published(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path().join("..data")).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != ".rotation.json");
        names.sort();
        names
    }
}

/// From when to when a certificate is valid, in days from now.
#[derive(Clone, Copy)]
pub(crate) struct Days(pub(crate) i64, pub(crate) i64);

pub(crate) const VALID: Days = Days(-1, 300);

impl Days {
    fn set(self, params: &mut CertificateParams) {
        #[allow(
            clippy::disallowed_methods,
            reason = "what is made is valid now, by the clock of the program"
        )]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let at = |days: i64| {
            let seconds = now.checked_add_signed(days * i64::try_from(DAY).unwrap()).unwrap();
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
        };
        (params.not_before, params.not_after) = (at(self.0), at(self.1));
    }
}

/// A certificate and its key, PEM.
pub(crate) struct Pair {
    pub(crate) crt: String,
    pub(crate) key: String,
}

pub(crate) fn leaf(days: Days) -> Pair {
    let mut params = CertificateParams::new(["service.test".to_owned()]).unwrap();
    days.set(&mut params);
    let key = key();
    Pair {
        crt: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

pub(crate) fn ca(name: &str, days: Days) -> String {
    ca_with(name, days, |params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign]
    })
}

pub(crate) fn ca_with(name: &str, days: Days, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    days.set(&mut params);
    change(&mut params);
    CertifiedIssuer::self_signed(params, key()).unwrap().pem()
}

/// A new key, whose PEM must never be printed.
pub(crate) fn key() -> KeyPair {
    let key = KeyPair::generate().unwrap();
    let pem = key.serialize_pem();
    // The first line of the body is the same for all keys of a kind, for the most part; the second is the key.
    SECRETS.lock().unwrap().extend(pem.lines().nth(2).map(str::to_owned));
    key
}
