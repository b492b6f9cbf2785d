//! The books of all servers, read without a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use keydir::Fingerprint;
use tokio::time::Instant;

use super::book::{Attempt, Book, Turn};
use super::origin::Origin;

/// So many servers are remembered; the one that has said nothing new for longest is forgotten for another.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Memory {
    servers: ArcSwap<HashMap<Arc<Origin>, Server>>,
    writing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Server {
    book: Book,
    written: Instant,
}

impl Memory {
    /// Whether this server simply accepts this credential.
    pub(super) fn accepts(&self, origin: &Origin, credential: Fingerprint) -> bool {
        let servers = self.servers.load();
        servers
            .get(origin)
            .is_some_and(|server| server.book.accepts(credential))
    }

    /// What to present to this server; the turn to probe is taken.
    pub(super) fn turn(
        &self,
        origin: &Arc<Origin>,
        now: Instant,
        primary: Fingerprint,
        others: &[Fingerprint],
    ) -> Turn {
        let turn = |book: &Book| book.turn(now, primary, others);
        match self
            .servers
            .load()
            .get(origin)
            .map_or(Turn::Primary, |server| turn(&server.book))
        {
            Turn::Probe => self.change(origin, now, |book| {
                let turn = turn(book);
                if turn == Turn::Probe {
                    book.claim(now, primary);
                }
                turn
            }),
            turn => turn,
        }
    }

    /// The one to present after a refusal.
    pub(super) fn other(&self, origin: &Origin, now: Instant, others: &[Fingerprint]) -> Option<Fingerprint> {
        let servers = self.servers.load();
        match servers.get(origin) {
            Some(server) => server.book.other(now, others),
            None => others.first().copied(),
        }
    }

    /// As [`Book::refused`].
    pub(super) fn refused(&self, origin: &Arc<Origin>, now: Instant, attempt: Attempt) -> Option<Duration> {
        self.change(origin, now, |book| book.refused(now, attempt))
    }

    /// As [`Book::accepted`].
    pub(super) fn accepted(&self, origin: &Arc<Origin>, now: Instant, attempt: Attempt) -> bool {
        !self.accepts(origin, attempt.credential) && self.change(origin, now, |book| book.accepted(now, attempt))
    }

    fn change<T>(&self, origin: &Arc<Origin>, now: Instant, change: impl FnOnce(&mut Book) -> T) -> T {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut servers = HashMap::clone(&self.servers.load());
        if servers.len() >= MOST && !servers.contains_key(origin) {
            let oldest = servers.iter().min_by_key(|(_, server)| server.written);
            let oldest = oldest.map(|(origin, _)| Arc::clone(origin));
            oldest.and_then(|oldest| servers.remove(&oldest));
        }
        let server = servers.entry(Arc::clone(origin)).or_insert_with(|| Server {
            book: Book::default(),
            written: now,
        });
        server.written = now;
        let outcome = change(&mut server.book);
        self.servers.store(Arc::new(servers));
        outcome
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::super::origin::{Binding, Target};
    use super::*;

    fn origin(number: usize) -> Arc<Origin> {
        let uri: Uri = format!("https://host{number}.test/").parse().unwrap();
        Binding::Any { plain: false }.admit(&Target::of(&uri).unwrap()).unwrap()
    }

    #[test]
    fn it_is_bounded_and_forgets_who_was_silent_for_longest() {
        let memory = Memory::default();
        let now = Instant::now();
        let credential = Fingerprint::of(b"token");
        let attempt = |sent| Attempt {
            credential,
            sent,
            probe: false,
        };
        for number in 0..=MOST {
            let now = now + Duration::from_millis(u64::try_from(number).unwrap());
            assert!(memory.accepted(&origin(number), now, attempt(now)));
        }
        assert_eq!(memory.servers.load().len(), MOST);
        assert!(!memory.accepts(&origin(0), credential));
        assert!(memory.accepts(&origin(1), credential) && memory.accepts(&origin(MOST), credential));
    }

    #[test]
    fn one_of_many_that_ask_at_once_is_to_probe() {
        let memory = Memory::default();
        let now = Instant::now();
        let (old, new) = (Fingerprint::of(b"old"), Fingerprint::of(b"new"));
        let accepted = Attempt {
            credential: old,
            sent: now,
            probe: false,
        };
        assert!(memory.accepted(&origin(1), now, accepted));
        let turns: Vec<Turn> = std::thread::scope(|scope| {
            let ask = || memory.turn(&origin(1), now, new, &[old]);
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Probe).count(), 1);
        assert_eq!(turns.iter().filter(|turn| **turn == Turn::Other(old)).count(), 7);
        assert_eq!(
            memory.turn(&origin(2), now, new, &[old]),
            Turn::Primary,
            "each server has a book of its own"
        );
    }
}
