//! The policy file: what is wanted of which directories. TOML; whatever cannot work is an error that names its line.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::composite::Role;
use crate::consumer::Consumer;
use crate::make::Make;
use crate::policy::Policy;
use crate::source::Source;
use crate::window::Windows;

/// A policy file.
///
/// ```
/// let text = r#"
///     [[directory]]
///     path = "/var/lib/keydir/api-token"
///     make = "token"
///     rotate_every = "30 days"
///     propagation = "2 min"
///     overlap = "1 h"
///     deadline = "1 day"
///     windows = ["Sun 02:00-04:00"]
///
///     [[directory.consumer]]
///     name = "api-1"
///     report = "/run/api-1/report.json"
///     directory = "/run/secrets/api-token"
/// "#;
/// let settings = keydir_rotate::Settings::parse(text, "keydir.toml")?;
/// assert_eq!(settings.directories.len(), 1);
///
/// let error = keydir_rotate::Settings::parse(&text.replace("30 days", "30 min"), "keydir.toml").unwrap_err();
/// assert_eq!(error.line(), Some(5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The directories, in the order of the file.
    pub directories: Vec<Directory>,
}

/// What is wanted of one directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// What a new revision is made of.
    pub make: Make,
    /// Of leaves and anchors: the directory of their CA.
    pub ca: Option<PathBuf>,
    /// When it moves.
    pub policy: Policy,
    /// Who has to confirm.
    pub consumers: Vec<Source>,
    /// Whether the group may read it too.
    pub group_readable: bool,
    /// What has to succeed before an old revision goes: a program and its arguments.
    pub migrate: Option<Vec<String>>,
}

/// Why a policy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    file: String,
    line: Option<usize>,
    reason: String,
}

impl SettingsError {
    /// The line that is wrong, counted from 1.
    pub fn line(&self) -> Option<usize> {
        self.line
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}, line {line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for SettingsError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    directory: Vec<Spanned<Raw>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    path: Spanned<PathBuf>,
    make: Spanned<Make>,
    ca: Option<Spanned<PathBuf>>,
    rotate_every: Option<Spanned<Length>>,
    propagation: Option<Spanned<Length>>,
    overlap: Option<Length>,
    deadline: Option<Spanned<Length>>,
    fresh: Option<Spanned<Length>>,
    skew: Option<Spanned<Length>>,
    #[serde(default)]
    windows: Vec<Spanned<String>>,
    migrate: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    group_readable: bool,
    #[serde(default)]
    consumer: Vec<Source>,
}

/// In whole seconds; what is begun counts, since shorter waits would be too short.
#[derive(Clone, Copy)]
struct Length(u64);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let length = humantime::parse_duration(&text)
            .map_err(|error| de::Error::custom(format!("{text:?} is no length of time: {error}")))?;
        Ok(Self(
            length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0)),
        ))
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0)).fmt(f)
    }
}

const MINUTE: u64 = 60;
/// The kubelet's own period and cache, and a poll of the consumer.
const PROPAGATION: Length = Length(3 * MINUTE);
const OVERLAP: Length = Length(60 * MINUTE);
const FRESH: Length = Length(5 * MINUTE);
const SKEW: Length = Length(10);

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or cannot work.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        let path = path.as_ref();
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| SettingsError {
            file: file.clone(),
            line: None,
            reason: format!("the policy cannot be read: {error}"),
        })?;
        Self::parse(&text, &file)
    }

    /// Reads a text; `file` is what errors call it.
    ///
    /// # Errors
    /// If it cannot work.
    pub fn parse(text: &str, file: &str) -> Result<Self, SettingsError> {
        let wrong = |span: Option<Range<usize>>, reason: String| SettingsError {
            file: file.to_owned(),
            line: span.and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1)),
            reason,
        };
        let raw: File = toml::from_str(text).map_err(|error| wrong(error.span(), error.message().to_owned()))?;
        let mut settings = Self {
            directories: Vec::new(),
        };
        let mut places = Vec::new();
        for raw in raw.directory {
            let path = raw.get_ref().path.clone();
            places.push(raw.get_ref().make.span());
            let directory = Directory::check(raw).map_err(|(span, reason)| wrong(Some(span), reason))?;
            if settings.directories.iter().any(|other| other.path == directory.path) {
                let reason = "the directory is there twice".to_owned();
                return Err(wrong(Some(path.span()), reason));
            }
            settings.directories.push(directory);
        }
        if settings.directories.is_empty() {
            return Err(wrong(None, "it has no [[directory]]".to_owned()));
        }
        for (directory, place) in settings.directories.iter().zip(places) {
            let checked = settings.check_lives(directory);
            checked.map_err(|reason| wrong(Some(place), reason))?;
        }
        Ok(settings)
    }

    /// Certificates have to live longer than it takes to replace them.
    fn check_lives(&self, directory: &Directory) -> Result<(), String> {
        let (life, needed, because) = match &directory.make {
            Make::Leaf(profile) => {
                self.has_ca(directory)?;
                let because = "its last third has to be longer than propagation and skew";
                let policy = &directory.policy;
                (
                    profile.life.as_secs(),
                    policy.propagation.saturating_add(policy.skew),
                    because,
                )
            }
            Make::Ca(profile) => {
                let below = || {
                    self.directories
                        .iter()
                        .filter(|other| other.ca.as_ref() == Some(&directory.path))
                };
                let longest = below().filter_map(|other| match &other.make {
                    Make::Leaf(leaf) => Some(leaf.life.as_secs()),
                    _ => None,
                });
                let spread = below().map(|other| other.policy.propagation).max().unwrap_or_default();
                if longest.clone().next().is_some() && !below().any(|other| other.make == Make::Anchors) {
                    return Err(
                        "the policy has leaves of this CA, and no directory of its anchors: nobody could know \
                         when all trust it"
                            .to_owned(),
                    );
                }
                let policy = &directory.policy;
                let parts = [
                    longest.max().unwrap_or_default(),
                    policy.propagation,
                    spread,
                    spread,
                    policy.skew,
                ];
                let needed = parts.into_iter().fold(0, u64::saturating_add);
                let because = "its last third has to be longer than a leaf's life, propagation to all, and skew";
                (profile.life.as_secs(), needed, because)
            }
            Make::Anchors => return self.has_ca(directory),
            _ => return Ok(()),
        };
        // It is renewed at two thirds of its life, or some earlier.
        match life / 3 > needed {
            true => Ok(()),
            false => Err(format!(
                "a life of {} is too short: {because} ({})",
                Length(life),
                Length(needed)
            )),
        }
    }

    fn has_ca(&self, directory: &Directory) -> Result<(), String> {
        let path = directory.ca.clone().unwrap_or_default();
        match self.of(&path).map(|ca| &ca.make) {
            Some(Make::Ca(_)) => Ok(()),
            _ => Err(format!("the policy makes no CA in {}", path.display())),
        }
    }

    /// What is wanted of the directory at this path.
    pub fn of(&self, path: &Path) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.path == path)
    }
}

impl Directory {
    /// What it is to others.
    pub fn role(&self) -> Role {
        match (&self.make, &self.ca) {
            (Make::Ca(_), _) => Role::Ca,
            (Make::Anchors, Some(ca)) => Role::Trust { ca: ca.clone() },
            (Make::Leaf(_), Some(ca)) => Role::Leaf { ca: ca.clone() },
            _ => Role::Alone,
        }
    }

    /// What its consumers say, and why some say nothing.
    pub fn hear(&self) -> (Vec<Consumer>, Vec<String>) {
        let heard = self.consumers.iter().map(|source| source.hear(&self.path));
        let (consumers, troubles): (Vec<_>, Vec<_>) = heard.unzip();
        (consumers, troubles.into_iter().flatten().collect())
    }

    fn check(raw: Spanned<Raw>) -> Result<Self, (Range<usize>, String)> {
        let whole = raw.span();
        let raw = raw.into_inner();
        let at = |length: &Option<Spanned<Length>>| length.as_ref().map_or_else(|| whole.clone(), Spanned::span);
        let or = |length: &Option<Spanned<Length>>, default: Length| length.as_ref().map_or(default, |l| *l.get_ref());
        let propagation = or(&raw.propagation, PROPAGATION);
        let overlap = raw.overlap.unwrap_or(OVERLAP);
        let fresh = or(&raw.fresh, FRESH);
        let mut windows = Windows::default();
        for window in &raw.windows {
            let added = windows.add(window.get_ref());
            added.map_err(|error| (window.span(), error.to_string()))?;
        }
        if let Some(every) = &raw.rotate_every {
            let takes = Length(propagation.0.saturating_mul(2).saturating_add(overlap.0));
            if every.get_ref().0 <= takes.0 {
                let reason = format!(
                    "rotate_every is {}, and a rotation takes {takes} at least: propagation twice ({propagation}), and \
                     overlap ({overlap})",
                    every.get_ref()
                );
                return Err((every.span(), reason));
            }
        }
        if let Some(deadline) = &raw.deadline
            && deadline.get_ref().0 < propagation.0
        {
            let reason = format!(
                "deadline is {}, and consumers have {propagation} to load a publication",
                deadline.get_ref()
            );
            return Err((deadline.span(), reason));
        }
        if fresh.0 == 0 {
            return Err((at(&raw.fresh), "fresh is 0: no report would ever count".to_owned()));
        }
        let skew = or(&raw.skew, SKEW);
        if skew.0 == 0 {
            let reason = "skew is 0: no two clocks agree so well, and each look would find that one has jumped";
            return Err((at(&raw.skew), reason.to_owned()));
        }
        if let Some(migrate) = raw.migrate.as_ref().filter(|migrate| migrate.get_ref().is_empty()) {
            let reason = "migrate is empty: a program and its arguments".to_owned();
            return Err((migrate.span(), reason));
        }
        if !raw.path.get_ref().is_absolute() {
            return Err((raw.path.span(), "path must be absolute".to_owned()));
        }
        let make = raw.make.get_ref();
        make.check().map_err(|reason| (raw.make.span(), reason))?;
        match (make, &raw.ca) {
            (Make::Leaf(_) | Make::Anchors, None) => {
                let reason = "ca is missing: the directory of the CA that issues".to_owned();
                return Err((raw.make.span(), reason));
            }
            (Make::Leaf(_) | Make::Anchors, Some(_)) | (_, None) => {}
            (_, Some(ca)) => return Err((ca.span(), "ca is for leaves and anchors".to_owned())),
        }
        Ok(Self {
            policy: Policy {
                every: raw.rotate_every.map(|every| every.into_inner().0),
                propagation: propagation.0,
                overlap: overlap.0,
                deadline: raw.deadline.map(|deadline| deadline.into_inner().0),
                fresh: fresh.0,
                skew: skew.0,
                windows,
                migrates: raw.migrate.is_some(),
            },
            path: raw.path.into_inner(),
            make: raw.make.into_inner(),
            ca: raw.ca.map(Spanned::into_inner),
            consumers: raw.consumer,
            group_readable: raw.group_readable,
            migrate: raw.migrate.map(Spanned::into_inner),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESH: &str = "\
[[directory]]
path = '/ca'
make = { ca = { name = 'mesh', life = '90 days' } }
[[directory]]
path = '/trust'
ca = '/ca'
make = 'anchors'
[[directory]]
path = '/api'
ca = '/ca'
make = { leaf = { dns = ['api.mesh'], usage = ['server'], life = '1 day' } }
";

    #[test]
    fn certificates_have_to_live_long_enough_to_be_replaced() {
        assert_eq!(Settings::parse(MESH, "p").unwrap().directories.len(), 3);
        for (from, to, line, said) in [
            ("life = '90 days'", "life = '3 days'", 3, "a life of 3days is too short"),
            ("life = '1 day'", "life = '9 min'", 11, "a life of 9m is too short"),
            ("life = '1 day'", "life = '40 days'", 3, "longer than a leaf's life"),
            ("path = '/ca'", "path = '/other'", 7, "the policy makes no CA in /ca"),
            ("make = 'anchors'", "make = 'token'", 6, "ca is for leaves and anchors"),
            (
                "path = '/trust'\nca = '/ca'\nmake = 'anchors'",
                "path = '/trust'\nmake = 'token'",
                3,
                "no directory of its anchors",
            ),
        ] {
            let error = Settings::parse(&MESH.replace(from, to), "p").unwrap_err();
            assert_eq!(error.line(), Some(line), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    /// Whatever is written there, it is an error or a policy.
    #[test]
    fn lengths_that_are_huge_or_tiny() {
        let parse = |lengths: &str| {
            let text = format!("[[directory]]\npath = '/a'\nmake = 'token'\n{lengths}");
            Settings::parse(&text, "p").map(|mut settings| settings.directories.remove(0).policy)
        };
        let huge = "580000000000 years";
        let error = parse(&format!(
            "rotate_every = '1 day'\npropagation = '{huge}'\noverlap = '{huge}'"
        ));
        assert_eq!(error.unwrap_err().line(), Some(4));
        let text = MESH.replace("make = 'anchors'", &format!("make = 'anchors'\npropagation = '{huge}'"));
        assert_eq!(Settings::parse(&text, "p").unwrap_err().line(), Some(3));
        // What is begun counts.
        let policy = parse("propagation = '1500ms'\noverlap = '1ms'\nskew = '1ms'").unwrap();
        assert_eq!((policy.propagation, policy.overlap, policy.skew), (2, 1, 1));
        assert!(parse("skew = '0s'").unwrap_err().to_string().contains("skew is 0"));
    }
}
