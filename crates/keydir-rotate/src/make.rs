//! What a new revision of a directory is made of, as a policy says it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keydir::{FileName, Files, RevisionId, Secret};
use serde::Deserialize;

use crate::generate::{self, Ca, CaProfile, Certificate, KeyAlgorithm, KeyPair, LeafProfile};
use crate::holding::Holding;
use crate::step::Parts;
use crate::store::{LocalStore, Store};

/// What a new revision is made of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Make {
    /// A `token`.
    Token,
    /// A `password`.
    Password,
    /// A `key` of so many random bytes.
    Symmetric(usize),
    /// A `private` key and its `public` one.
    KeyPair(KeyAlgorithm),
    /// A CA: a `crt`, signed by itself, and its `key`.
    Ca(CaProfile),
    /// The `crt` of each revision of a CA, for whoever verifies.
    Anchors,
    /// A leaf that a CA issues: a `crt` and its `key`.
    Leaf(LeafProfile),
    /// Whatever a program makes.
    Command(Program),
}

/// A program that makes something outside, and takes it away again. It is given the id of the revision in the environment
/// variable `KEYDIR_REVISION`, and may be run more than once for one id, with the same result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Program {
    /// Makes it: prints a JSON object of parts and their texts, such as `{"username": "u", "password": "p"}`.
    pub mint: Vec<String>,
    /// Takes it away, after the revision has left the directory.
    #[serde(default)]
    pub destroy: Vec<String>,
}

/// The directory of a CA.
pub(crate) struct IssuerDir {
    path: PathBuf,
    files: Files,
}

impl IssuerDir {
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, MakeError> {
        let path = path.ok_or(MakeError::NoCa)?.to_owned();
        let files = LocalStore::new(&path).read();
        let files = files.map_err(|error| MakeError::Ca(path.clone(), error.to_string()))?;
        Ok(Self { path, files })
    }

    /// The revision that issues.
    pub(crate) fn issuing(&self) -> Option<RevisionId> {
        self.files
            .keys()
            .find_map(|name| match FileName::parse(name.as_bytes()) {
                FileName::File { id, primary: true, .. } => Some(id),
                _ => None,
            })
    }

    /// The certificate of a revision.
    pub(crate) fn certificate(&self, id: &RevisionId) -> Result<Certificate, MakeError> {
        let content = self
            .part(id, "crt")
            .ok_or_else(|| self.wrong(format!("{id} has no crt")))?;
        let all = Certificate::all_from_pem(content.expose()).map_err(MakeError::Generate)?;
        all.into_iter()
            .next()
            .ok_or_else(|| self.wrong(format!("{id}.crt holds no certificate")))
    }

    /// Which revision has issued a leaf.
    pub(crate) fn issuer_of(&self, leaf: &Certificate) -> Option<RevisionId> {
        let ids = Holding::of_names(self.files.keys().map(String::as_str))
            .revisions
            .into_keys();
        ids.into_iter()
            .find(|id| self.certificate(id).is_ok_and(|ca| ca.is_issuer_of(leaf)))
    }

    fn load(&self) -> Result<Ca, MakeError> {
        let id = self
            .issuing()
            .ok_or_else(|| self.wrong("nothing is marked".to_owned()))?;
        match (self.part(&id, "crt"), self.part(&id, "key")) {
            (Some(crt), Some(key)) => Ca::load(crt.expose(), key).map_err(MakeError::Generate),
            _ => Err(self.wrong(format!("{id} has no crt and key"))),
        }
    }

    fn part(&self, id: &RevisionId, part: &str) -> Option<&Secret> {
        let name = format!("{id}.{part}");
        self.files
            .get(&name)
            .or_else(|| self.files.get(&format!("{name}.primary")))
    }

    fn wrong(&self, reason: String) -> MakeError {
        MakeError::Ca(self.path.clone(), reason)
    }
}

fn pair(crt: String, key: Secret) -> Parts {
    vec![("crt".to_owned(), crt.as_str().into()), ("key".to_owned(), key)]
}

fn time(now: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(now)
}

/// Why nothing was made.
#[derive(Debug)]
#[non_exhaustive]
pub enum MakeError {
    /// The policy names no directory of a CA.
    NoCa,
    /// The CA in this directory cannot issue.
    Ca(PathBuf, String),
    /// By keydir itself.
    Generate(generate::Error),
    /// The program could not be run.
    Io(String, io::Error),
    /// The program failed, and has said why on standard error.
    Failed(String, std::process::ExitStatus),
    /// The program printed no JSON object of texts with names of parts.
    Output(String),
}

impl fmt::Display for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCa => f.write_str("the policy names no ca"),
            Self::Ca(path, reason) => write!(f, "the CA in {}: {reason}", path.display()),
            Self::Generate(error) => error.fmt(f),
            Self::Io(program, error) => write!(f, "{program} cannot be run: {error}"),
            Self::Failed(program, status) => write!(f, "{program} has failed: {status}"),
            Self::Output(program) => write!(
                f,
                "{program} has to print a JSON object of parts and their texts, such as {{\"password\": \"..\"}}"
            ),
        }
    }
}

impl Error for MakeError {}

impl Make {
    /// Whether it can be made; if not, why.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Symmetric(bytes) => generate::symmetric(*bytes).map(drop).map_err(|error| error.to_string()),
            Self::Command(program) if program.mint.is_empty() => {
                Err("mint is empty: a program and its arguments".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether something outside is made, of which is to be known before it is there.
    pub(crate) fn is_outside(&self) -> bool {
        matches!(self, Self::Command(_))
    }

    /// Makes the parts of a revision, at this time in seconds since 1970. Leaves are issued by the CA in this directory.
    pub(crate) fn make(&self, id: &RevisionId, ca: Option<&Path>, now: u64) -> Result<Parts, MakeError> {
        let one = |part: &str, secret: Result<Secret, generate::Error>| {
            Ok(vec![(part.to_owned(), secret.map_err(MakeError::Generate)?)])
        };
        match self {
            Self::Token => one("token", generate::token()),
            Self::Password => one("password", generate::password()),
            Self::Symmetric(bytes) => one("key", generate::symmetric(*bytes)),
            Self::KeyPair(algorithm) => {
                let pair = KeyPair::generate(*algorithm).map_err(MakeError::Generate)?;
                Ok(vec![
                    ("private".to_owned(), pair.private),
                    ("public".to_owned(), pair.public.as_str().into()),
                ])
            }
            Self::Ca(profile) => {
                let ca = Ca::create(profile, id, time(now)).map_err(MakeError::Generate)?;
                Ok(pair(ca.crt(), ca.key().clone()))
            }
            Self::Anchors => {
                let issued = IssuerDir::read(ca)?.certificate(id)?;
                Ok(vec![("crt".to_owned(), issued.pem().as_str().into())])
            }
            Self::Leaf(profile) => {
                let leaf = IssuerDir::read(ca)?
                    .load()?
                    .issue(profile, time(now))
                    .map_err(MakeError::Generate)?;
                Ok(pair(leaf.crt, leaf.key))
            }
            Self::Command(program) => program.mint(id),
        }
    }

    /// Takes away what was made outside.
    pub(crate) fn destroy(&self, id: &RevisionId) -> Result<(), MakeError> {
        match self {
            Self::Command(program) if !program.destroy.is_empty() => run(&program.destroy, id).map(drop),
            _ => Ok(()),
        }
    }
}

impl Program {
    fn mint(&self, id: &RevisionId) -> Result<Parts, MakeError> {
        let printed = run(&self.mint, id)?;
        let wrong = || MakeError::Output(self.mint.join(" "));
        let parts: BTreeMap<String, String> = serde_json::from_slice(printed.expose()).map_err(|_| wrong())?;
        let is_part = |part: &String| {
            let name = format!("{id}.{part}");
            matches!(FileName::parse(name.as_bytes()), FileName::File { primary: false, .. })
        };
        if parts.is_empty() || !parts.keys().all(is_part) {
            return Err(wrong());
        }
        Ok(parts
            .into_iter()
            .map(|(part, text)| (part, Secret::new(text.into_bytes())))
            .collect())
    }
}

/// Runs a program to its end; what it has printed. What it says on standard error is shown as it is.
pub(crate) fn run(words: &[String], id: &RevisionId) -> Result<Secret, MakeError> {
    let Some((name, arguments)) = words.split_first() else {
        return Ok(Secret::new(Vec::new()));
    };
    let failed = |error| MakeError::Io(name.clone(), error);
    let mut command = Command::new(name);
    command.args(arguments).env("KEYDIR_REVISION", id.as_str());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut printed = Vec::new();
    if let Some(output) = &mut child.stdout {
        output.take(1 << 20).read_to_end(&mut printed).map_err(failed)?;
    }
    drop(child.stdout.take());
    let status = child.wait().map_err(failed)?;
    match status.success() {
        true => Ok(Secret::new(printed)),
        false => Err(MakeError::Failed(name.clone(), status)),
    }
}
