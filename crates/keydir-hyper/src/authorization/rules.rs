//! What is presented where, and what an answer says of it.

use std::fmt;
use std::sync::Arc;

use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use keydir::NoPrimary;
use tokio::time::Instant;

use super::book::{Attempt, Turn};
use super::challenge::asks_for;
use super::memory::Memory;
use super::origin::{Binding, Origin, Target};
use super::outgoing::{Answer, Outgoing};
use super::source::{Credential, NoCredential, Source};

/// What a layer was told.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) source: Arc<dyn Source>,
    pub(super) header: HeaderName,
    /// The one by which a server asks for such credentials; none for a header of its own.
    pub(super) scheme: Option<&'static str>,
    pub(super) binding: Binding,
    /// Whether another credential may be tried.
    pub(super) memory: Option<Arc<Memory>>,
}

/// What one request presents.
pub(super) struct Presented {
    pub(super) origin: Arc<Origin>,
    pub(super) credential: Credential,
    /// For the server's book.
    attempt: Option<Attempt>,
    /// Whether another may be tried after it.
    pub(super) first: bool,
}

/// What an answer says of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Refused,
    /// Who presents it is limited, perhaps before anybody has looked at it: that is a use, and no acceptance.
    Limited,
    Unknown,
}

impl Rules {
    /// Where the request goes, if it is to get a credential.
    pub(super) fn admit<R: Outgoing>(&self, request: &R) -> Option<Arc<Origin>> {
        let target = request.target();
        let bound = target.filter(|target| self.is_bound_to_hosts(target, request.headers()));
        let Some(origin) = bound.and_then(|target| self.binding.admit(&target)) else {
            tracing::debug!(
                host = target.map(|target| target.host),
                header = %self.header,
                "the request goes without a credential, since none is bound to where it goes"
            );
            return None;
        };
        (!request.headers().contains_key(&self.header)).then_some(origin)
    }

    /// Where a request names its host itself, it is that host that a server behind the connection goes by (RFC 9110, 7.2).
    fn is_bound_to_hosts(&self, target: &Target<'_>, headers: &HeaderMap) -> bool {
        let is_bound = |host: &HeaderValue| {
            let host = Authority::try_from(host.as_bytes()).ok();
            host.and_then(|host| self.binding.admit(&target.at(&host)?)).is_some()
        };
        self.binding.is_any() || headers.get_all(HOST).iter().all(is_bound)
    }

    /// Takes a credential for a request that begins now.
    pub(super) fn present(&self, origin: &Arc<Origin>) -> Result<Presented, NoCredential> {
        loop {
            let presented = self.choose(origin).map_err(|reason| NoCredential {
                directory: self.source.directory().to_owned(),
                reason,
            })?;
            if self.source.has(&presented.credential) {
                return Ok(presented);
            }
        }
    }

    fn choose(&self, origin: &Arc<Origin>) -> Result<Presented, NoPrimary> {
        let primary = self.source.primary()?;
        let presented = |credential, attempt, first| Presented {
            origin: Arc::clone(origin),
            credential,
            attempt,
            first,
        };
        let Some(memory) = self.memory_of(origin) else {
            return Ok(presented(primary, None, false));
        };
        let now = Instant::now();
        let attempt = |credential: &Credential, probe| {
            Some(Attempt {
                credential: credential.fingerprint,
                sent: now,
                probe,
            })
        };
        if memory.accepts(origin, primary.fingerprint) {
            let attempt = attempt(&primary, false);
            let first = !self.source.is_alone(&primary);
            return Ok(presented(primary, attempt, first));
        }
        let mut others = self.source.others(primary.fingerprint);
        let known: Vec<_> = others.iter().map(|other| other.fingerprint).collect();
        let turn = memory.turn(origin, now, primary.fingerprint, &known);
        let other = match turn {
            Turn::Other(other) => others.iter().position(|credential| credential.fingerprint == other),
            Turn::Primary | Turn::Probe => None,
        };
        Ok(match other {
            Some(index) => {
                let other = others.swap_remove(index);
                let attempt = attempt(&other, false);
                presented(other, attempt, false)
            }
            None => {
                let attempt = attempt(&primary, turn == Turn::Probe);
                presented(primary, attempt, !others.is_empty())
            }
        })
    }

    /// The one other credential that may be tried after this one was refused.
    pub(super) fn another(&self, refused: &Presented) -> Option<Presented> {
        let origin = &refused.origin;
        let memory = self.memory_of(origin).filter(|_| refused.first)?;
        let now = Instant::now();
        let others = self.source.others(refused.credential.fingerprint);
        let known: Vec<_> = others.iter().map(|other| other.fingerprint).collect();
        let other = memory.other(origin, now, &known)?;
        let credential = others.into_iter().find(|credential| credential.fingerprint == other)?;
        Some(Presented {
            origin: Arc::clone(origin),
            attempt: Some(Attempt {
                credential: other,
                sent: now,
                probe: false,
            }),
            credential,
            first: false,
        })
    }

    /// An answer other than 401, those that are given before a request is looked at (407, 408, 421, 429), and those of a
    /// server that has failed counts as an acceptance: also 403 and 404, which a client may get for ever with a credential
    /// that is in use.
    pub(super) fn verdict<A: Answer>(&self, presented: &Presented, answer: &A) -> Verdict {
        match answer.status() {
            StatusCode::UNAUTHORIZED => {
                let asked = self.scheme.is_none_or(|scheme| asks_for(answer.headers(), scheme));
                match asked && !answer.is_from_elsewhere(&presented.origin) {
                    true => Verdict::Refused,
                    false => Verdict::Unknown,
                }
            }
            StatusCode::TOO_MANY_REQUESTS => Verdict::Limited,
            StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::MISDIRECTED_REQUEST => Verdict::Unknown,
            status if status.is_server_error() => Verdict::Unknown,
            _ => Verdict::Accepted,
        }
    }

    /// Writes down what was said of a credential.
    pub(super) fn note(&self, presented: &Presented, verdict: Verdict) {
        let Presented { origin, credential, .. } = presented;
        let book = self.memory_of(origin).zip(presented.attempt);
        let (directory, revision) = (self.source.directory(), credential.id());
        match verdict {
            Verdict::Unknown => {}
            Verdict::Limited => credential.touch(),
            Verdict::Accepted => {
                credential.touch();
                if book.is_some_and(|(memory, attempt)| memory.accepted(origin, Instant::now(), attempt)) {
                    tracing::debug!(directory, %revision, %origin, "the server accepts the credential");
                }
            }
            Verdict::Refused => match book {
                None => tracing::debug!(directory, %revision, %origin, "the server refuses the credential"),
                Some((memory, attempt)) => {
                    if let Some(pause) = memory.refused(origin, Instant::now(), attempt) {
                        tracing::warn!(
                            directory,
                            %revision,
                            %origin,
                            ?pause,
                            "the server refuses the credential: it is left alone while there is another"
                        );
                    }
                }
            },
        }
    }

    /// Only who has proved to be the origin is shown more than one.
    fn memory_of(&self, origin: &Origin) -> Option<&Memory> {
        self.memory.as_deref().filter(|_| origin.is_tls())
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("directory", &self.source.directory())
            .field("header", &self.header)
            .field("binding", &self.binding)
            .field("try_another", &self.memory.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::header::AUTHORIZATION;
    use keydir::{Dir, Fingerprint};

    use super::super::source::Of;
    use super::*;
    use crate::token::{Token, TokenView};

    /// The primary is replaced just after it was asked for, so many times.
    struct Overtaken {
        source: Of<TokenView>,
        dir: Dir,
        left: AtomicUsize,
    }

    impl Overtaken {
        fn id(left: usize) -> String {
            format!("r{left}.token.primary")
        }
    }

    impl Source for Overtaken {
        fn directory(&self) -> &str {
            self.source.directory()
        }

        fn primary(&self) -> Result<Credential, NoPrimary> {
            let primary = self.source.primary();
            let left = self.left.load(Ordering::SeqCst);
            if left > 0 {
                self.left.store(left - 1, Ordering::SeqCst);
                self.dir
                    .publish([(Self::id(left - 1), format!("token-{left}"))])
                    .unwrap();
            }
            primary
        }

        fn others(&self, than: Fingerprint) -> Vec<Credential> {
            self.source.others(than)
        }

        fn is_alone(&self, credential: &Credential) -> bool {
            self.source.is_alone(credential)
        }

        fn has(&self, credential: &Credential) -> bool {
            self.source.has(credential)
        }
    }

    #[test]
    fn what_was_replaced_while_it_was_taken_is_not_presented() {
        let dir = Dir::in_memory([(Overtaken::id(3), "token-first")]);
        let live = Token::in_dir(&dir).unwrap().live().clone();
        let source = Overtaken {
            source: Of {
                live,
                form: |token| (token.bearer(), token.fingerprint()),
            },
            dir,
            left: AtomicUsize::new(3),
        };
        let rules = Rules {
            source: Arc::new(source),
            header: AUTHORIZATION,
            scheme: None,
            binding: Binding::Any { plain: false },
            memory: None,
        };
        let uri = "https://api.internal/".parse().unwrap();
        let origin = rules.binding.admit(&Target::of(&uri).unwrap()).unwrap();
        let presented = rules.present(&origin).unwrap();
        assert_eq!(presented.credential.id().as_str(), "r0");
    }
}
