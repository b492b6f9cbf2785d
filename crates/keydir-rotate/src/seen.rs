//! What the files of a directory say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use keydir::{FileName, Files, RevisionId};

use crate::consumer::Consumer;
use crate::generate::Certificate;
use crate::holding::Holding;
use crate::make::IssuerDir;
use crate::observed::{Links, Observed};
use crate::state::State;

/// The first certificate of each revision: a leaf, or a CA.
fn certificates(files: &Files) -> impl Iterator<Item = (RevisionId, Certificate)> {
    files.iter().filter_map(|(name, content)| {
        let id = match FileName::parse(name.as_bytes()) {
            FileName::File { id, part, .. } if *part == *"crt" => id,
            _ => return None,
        };
        let all = Certificate::all_from_pem(content.expose()).ok()?;
        Some((id, all.into_iter().next()?))
    })
}

/// By which revision of the CA each leaf was issued.
pub(crate) fn issuers(files: &Files, ca: &IssuerDir) -> BTreeMap<RevisionId, RevisionId> {
    certificates(files)
        .filter_map(|(id, leaf)| Some((id, ca.issuer_of(&leaf)?)))
        .collect()
}

/// Anchors that bear the name of a revision of the CA, and are something else.
pub(crate) fn clashes(files: &Files, ca: &IssuerDir) -> BTreeSet<RevisionId> {
    let is_other = |id: &RevisionId| {
        let names = ["crt", "pem"].map(|part| format!("{id}.{part}"));
        let here = names.iter().find_map(|name| files.get(name))?;
        let here = Certificate::all_from_pem(here.expose()).ok();
        let ca = ca.certificate(id).ok()?;
        Some(
            here.and_then(|all| Some(all.first()?.pem() != ca.pem()))
                .unwrap_or(true),
        )
    };
    let ids = Holding::of_names(files.keys().map(String::as_str))
        .revisions
        .into_keys();
    ids.filter(|id| is_other(id).unwrap_or(false)).collect()
}

/// Names and dates; with what is remembered, and what consumers say.
pub(crate) fn observe(files: &Files, state: Option<State>, consumers: Vec<Consumer>) -> Observed {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let life = |(id, one): (RevisionId, Certificate)| (id, (seconds(one.not_before()), seconds(one.not_after())));
    Observed {
        holding: Holding::of_names(files.keys().map(String::as_str)),
        state,
        consumers,
        lives: certificates(files).map(life).collect(),
        links: Links::default(),
    }
}
