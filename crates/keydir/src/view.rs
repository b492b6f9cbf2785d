//! How one protocol reads a directory: which parts a revision needs, and what is made of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::name::RevisionId;
use crate::secret::Fingerprint;

/// How one protocol reads a directory. A value, so that it carries its provider, its algorithm, its options.
///
/// ```
/// use keydir::{Broken, Candidates, Parsed, Revision, Unusable, Usage, View};
///
/// /// API keys: any of them is accepted, the primary is the one we hand out.
/// struct ApiKeys;
///
/// impl View for ApiKeys {
///     type Item = String;
///     type Whole = ();
///     fn usage(&self) -> &Usage {
///         const USAGE: Usage = Usage::new("api-key").naming(&[&["token"]]).text(&["token"]).presents().accepts();
///         &USAGE
///     }
///     fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<String>, Unusable> {
///         Ok(Parsed::new(revision.text("token")?.to_owned()))
///     }
///     fn combine(&self, _: &Candidates<'_, String>) -> Result<(), Broken> {
///         Ok(())
///     }
/// }
/// ```
pub trait View: Send + Sync + 'static {
    /// One revision, parsed.
    type Item: Send + Sync + 'static;
    /// What is derived from all revisions together (a verifier, header values, a JWKS); `()` if nothing.
    type Whole: Send + Sync + 'static;

    /// The use that this view reads: its name, its parts, its rules.
    fn usage(&self) -> &Usage;

    /// Makes one revision of its parts. Must be deterministic: no input or output, no clock. It is not called again
    /// for content that it has seen in the publication before. A panic in here makes the revision unusable.
    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<Self::Item>, Unusable>;

    /// Derives what belongs to all accepted revisions together; called again when the set changes, or when a
    /// [`Piece`] begins or ends, or at [`Parsed::again_at`]. If it fails, the last set that could be combined, less what was revoked, stays.
    fn combine(&self, keys: &Candidates<'_, Self::Item>) -> Result<Self::Whole, Broken>;
}

/// What a directory is used for (convention, section 5). Made as a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub(crate) name: &'static str,
    pub(crate) naming: &'static [&'static [&'static str]],
    pub(crate) other: &'static [&'static str],
    pub(crate) text: &'static [&'static str],
    pub(crate) private: &'static [&'static str],
    pub(crate) excluded: &'static [&'static str],
    pub(crate) presents: bool,
    pub(crate) accepts: bool,
    pub(crate) stops: bool,
}

impl Usage {
    /// A use that has no parts yet, neither presents nor accepts, and goes on with a revoked primary.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            naming: &[],
            other: &[],
            text: &[],
            private: &[],
            excluded: &[],
            presents: false,
            accepts: false,
            stops: false,
        }
    }

    /// The parts that a revision must have: one of each list.
    #[must_use]
    pub const fn naming(mut self, parts: &'static [&'static [&'static str]]) -> Self {
        self.naming = parts;
        self
    }

    /// Parts that a revision may have besides.
    #[must_use]
    pub const fn other(mut self, parts: &'static [&'static str]) -> Self {
        self.other = parts;
        self
    }

    /// Which parts are text: they lose one trailing line end, and may hold no other and no NUL.
    #[must_use]
    pub const fn text(mut self, parts: &'static [&'static str]) -> Self {
        self.text = parts;
        self
    }

    /// Which parts nobody but the service should be able to read; a file mode that says otherwise is a finding.
    #[must_use]
    pub const fn private(mut self, parts: &'static [&'static str]) -> Self {
        self.private = parts;
        self
    }

    /// Parts that show an id to be something else: with one of them it is no candidate.
    #[must_use]
    pub const fn excluded(mut self, parts: &'static [&'static str]) -> Self {
        self.excluded = parts;
        self
    }

    /// There is a primary, and it is shown, logged in or signed with.
    #[must_use]
    pub const fn presents(mut self) -> Self {
        self.presents = true;
        self
    }

    /// All usable revisions are accepted.
    #[must_use]
    pub const fn accepts(mut self) -> Self {
        self.accepts = true;
        self
    }

    /// When the primary is revoked, presenting stops (signing, sealing). Without this it goes on until another
    /// primary is there (certificates, logins: a refusal is loud and harmless).
    #[must_use]
    pub const fn stops_when_revoked(mut self) -> Self {
        self.stops = true;
        self
    }

    /// The name of the use, such as `tls-identity`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Whether there is a primary.
    pub const fn has_primary(&self) -> bool {
        self.presents
    }

    /// Whether any usable revision is accepted.
    pub const fn accepts_any(&self) -> bool {
        self.accepts
    }

    /// Whether a revision with these parts is a candidate of the use, as far as names tell.
    ///
    /// ```
    /// let anchors = |parts: &[&str]| keydir::uses::ANCHORS.is_candidate(|part| parts.contains(&part));
    /// assert!(anchors(&["crt"]) && !anchors(&["crt", "key"]) && !anchors(&["crl"]));
    /// ```
    pub fn is_candidate(&self, has: impl Fn(&str) -> bool) -> bool {
        self.has_naming_parts(&has) && self.excluding_part(&has).is_none()
    }

    pub(crate) fn has_naming_parts(&self, has: impl Fn(&str) -> bool) -> bool {
        self.naming.iter().all(|any_of| any_of.iter().any(|part| has(part)))
    }

    /// A part that shows the revision to be something else.
    pub(crate) fn excluding_part(&self, has: impl Fn(&str) -> bool) -> Option<&'static str> {
        self.excluded.iter().copied().find(|part| has(part))
    }

    /// All parts of the use.
    pub fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.naming_parts().chain(self.other.iter().copied())
    }

    pub(crate) fn naming_parts(&self) -> impl Iterator<Item = &'static str> {
        self.naming.iter().flat_map(|any_of| any_of.iter().copied())
    }
}

/// One revision's parts, after the newline rule, as [`View::parse`] sees them.
pub struct Revision<'a> {
    id: &'a RevisionId,
    parts: &'a [(&'a str, &'a [u8])],
    flat: bool,
}

impl<'a> Revision<'a> {
    pub(crate) fn new(id: &'a RevisionId, parts: &'a [(&'a str, &'a [u8])], flat: bool) -> Self {
        Self { id, parts, flat }
    }

    /// Whether it was read in the flat layout, where the id says nothing.
    pub fn is_flat(&self) -> bool {
        self.flat
    }

    /// The revision's id.
    pub fn id(&self) -> &'a RevisionId {
        self.id
    }

    /// The bytes of a part of the use, if it is there. Never empty.
    pub fn part(&self, name: &str) -> Option<&'a [u8]> {
        let part = self.parts.iter().find(|(part, _)| *part == name);
        part.map(|(_, bytes)| *bytes)
    }

    /// The bytes of a part that the revision cannot do without.
    pub fn need(&self, name: &str) -> Result<&'a [u8], Unusable> {
        self.part(name)
            .ok_or_else(|| Unusable::new("incomplete", format!("it has no part {name:?}")).part(name))
    }

    /// The user's name of a login (convention, section 5): the part `username`, or the id where there is none, if it is
    /// short enough for one and says anything.
    pub fn user_name(&self) -> Result<&'a str, Unusable> {
        const LONGEST_ID: usize = 63;
        let no = |reason| Err(Unusable::new("no-user-name", reason));
        let id = self.id.as_str();
        match self.part("username") {
            Some(_) => self.text("username"),
            None if self.flat => {
                no("it has no part \"username\", and the flat layout has no id to take instead: add one")
            }
            None if id.len() > LONGEST_ID => {
                no("it has no part \"username\", and its id is longer than a user name (63 bytes): add one")
            }
            None => Ok(id),
        }
    }

    /// A part that must be there and be UTF-8.
    pub fn text(&self, name: &str) -> Result<&'a str, Unusable> {
        std::str::from_utf8(self.need(name)?).map_err(|_| Unusable::new("not-utf8", "it is not UTF-8").part(name))
    }
}

impl fmt::Debug for Revision<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(|(part, _)| part).collect();
        f.debug_struct("Revision")
            .field("id", &self.id)
            .field("parts", &parts)
            .finish()
    }
}

/// What [`View::parse`] made of a revision.
#[derive(Debug)]
pub struct Parsed<T> {
    pub(crate) item: T,
    pub(crate) pieces: Vec<Piece>,
    pub(crate) moments: Vec<SystemTime>,
}

impl<T> Parsed<T> {
    /// An item that is valid for ever.
    pub fn new(item: T) -> Self {
        Self {
            item,
            pieces: Vec::new(),
            moments: Vec::new(),
        }
    }

    /// The same dates around another item.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Parsed<U> {
        Parsed {
            item: f(self.item),
            pieces: self.pieces,
            moments: self.moments,
        }
    }

    /// Adds what has dates of its own: the leaf of an identity, each anchor of a set. The revision is inside its
    /// validity while any of its pieces is.
    #[must_use]
    pub fn piece(mut self, piece: Piece) -> Self {
        self.pieces.push(piece);
        self
    }

    /// Has [`View::combine`] called again at this moment, for what has a date and is no piece: a CRL, which ends and
    /// ends no certificate.
    #[must_use]
    pub fn again_at(mut self, moment: SystemTime) -> Self {
        self.moments.push(moment);
        self
    }
}

/// A certificate, as far as the core needs to know it: the same or another, and from when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Of its DER.
    pub fingerprint: Fingerprint,
    /// The first moment of its validity.
    pub not_before: SystemTime,
    /// The last moment of its validity.
    pub not_after: SystemTime,
}

impl Piece {
    /// Whether `now` lies inside the validity: whole seconds, both ends included (RFC 5280, section 4.1.2.5).
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.has_begun_at(now) && !self.has_ended_at(now)
    }

    pub(crate) fn has_begun_at(&self, now: SystemTime) -> bool {
        now >= self.not_before
    }

    pub(crate) fn has_ended_at(&self, now: SystemTime) -> bool {
        self.ends_at().is_some_and(|end| now >= end)
    }

    /// The first moment after the validity.
    pub(crate) fn ends_at(&self) -> Option<SystemTime> {
        self.not_after.checked_add(Duration::from_secs(1))
    }
}

/// Why a revision cannot be used. Holds no byte of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    pub(crate) code: &'static str,
    pub(crate) part: Option<String>,
    pub(crate) reason: String,
}

impl Unusable {
    /// `code` is short and stable (`key-mismatch`), `reason` a sentence without the file's name and without secrets.
    pub fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self {
            code,
            part: None,
            reason: reason.into(),
        }
    }

    /// Names the part that is at fault.
    #[must_use]
    pub fn part(mut self, part: &str) -> Self {
        self.part = Some(part.to_owned());
        self
    }

    /// The short, stable name of the reason.
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.part {
            Some(part) => write!(f, "part {part}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Unusable {}

/// Why a set could not be combined, though each of its revisions is usable. Holds no secret byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(String);

impl Broken {
    /// `reason` is a sentence without secrets.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

/// The accepted revisions that [`View::combine`] derives something from.
pub struct Candidates<'a, T> {
    keys: &'a [(&'a RevisionId, &'a Arc<T>)],
    crls: &'a [(&'a RevisionId, &'a Arc<T>)],
    now: SystemTime,
}

impl<'a, T> Candidates<'a, T> {
    pub(crate) fn new(
        keys: &'a [(&'a RevisionId, &'a Arc<T>)],
        crls: &'a [(&'a RevisionId, &'a Arc<T>)],
        now: SystemTime,
    ) -> Self {
        Self { keys, crls, now }
    }

    /// The revisions in natural order, held ones included, revoked ones not.
    pub fn iter(&self) -> impl Iterator<Item = (&'a RevisionId, &'a Arc<T>)> {
        self.keys.iter().copied()
    }

    /// Former contents, with the revisions that go on with their CRLs: no `crl` part came with certificates that stood
    /// in them too (convention, section 3, rule 4). Nothing else of them is in force.
    pub fn kept_crls(&self) -> impl Iterator<Item = (&'a RevisionId, &'a Arc<T>)> {
        self.crls.iter().copied()
    }

    /// The moment for which the set is combined; pieces outside their validity at it are to be left out.
    pub fn now(&self) -> SystemTime {
        self.now
    }
}

impl<T> fmt::Debug for Candidates<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(id, _)| id)).finish()
    }
}
