//! What a key, a set and a subscriber see of publications, on directories in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures_core::Stream;
use keydir::{
    Broken, Candidates, Clock, Dir, Fingerprint, Live, NoPrimary, Parsed, Piece, Revision, Unusable, Usage, View,
};

/// Tokens of any use. Words after the first are pieces, `name:from-to`.
struct Words(Usage);

const LOGIN: Usage = Usage::new("login").naming(&[&["token"]]).text(&["token"]).presents();
const BOTH: Usage = LOGIN.accepts();
const SIGN: Usage = BOTH.stops_when_revoked();
const ACCEPT: Usage = Usage::new("accept").naming(&[&["token"]]).text(&["token"]).accepts();

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

impl View for Words {
    type Item = String;
    type Whole = Vec<String>;

    fn usage(&self) -> &Usage {
        &self.0
    }

    fn parse(&self, revision: &Revision<'_>) -> Result<Parsed<String>, Unusable> {
        let text = revision.text("token")?;
        let mut words = text.split(' ');
        let mut parsed = Parsed::new(words.next().unwrap_or_default().to_owned());
        for word in words {
            let (name, dates) = word.split_once(':').ok_or_else(|| Unusable::new("bad", "no dates"))?;
            let (from, to) = dates.split_once('-').ok_or_else(|| Unusable::new("bad", "no end"))?;
            parsed = parsed.piece(Piece {
                fingerprint: Fingerprint::of(name.as_bytes()),
                not_before: at(from.parse().map_err(|_| Unusable::new("bad", "no number"))?),
                not_after: at(to.parse().map_err(|_| Unusable::new("bad", "no number"))?),
            });
        }
        Ok(parsed)
    }

    fn combine(&self, keys: &Candidates<'_, String>) -> Result<Vec<String>, Broken> {
        Ok(keys.iter().map(|(id, token)| format!("{id}={token}")).collect())
    }
}

fn live(usage: Usage, files: &[(&str, &str)]) -> Live<Words> {
    Dir::in_memory(files.iter().copied()).view(Words(usage)).unwrap()
}

fn publish(live: &Live<Words>, files: &[(&str, &str)]) {
    live.dir().publish(files.iter().copied()).unwrap();
}

fn is_ready(future: Pin<&mut impl Future<Output = ()>>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn unchanged_content_keeps_its_key_and_what_hangs_on_it() {
    let live = live(BOTH, &[("r1.token.primary", "one")]);
    let first = live.primary().unwrap();
    let (mut ended, mut superseded) = (pin!(first.ended()), pin!(first.superseded()));
    publish(&live, &[("r1.token.primary", "one"), ("r2.token", "two")]);
    assert!(Arc::ptr_eq(&first, &live.primary().unwrap()));
    assert!(!is_ready(ended.as_mut()) && !is_ready(superseded.as_mut()));

    publish(&live, &[("r1.token", "one"), ("r2.token.primary", "two")]);
    assert!(Arc::ptr_eq(&first, live.load().get("r1").unwrap()));
    assert!(is_ready(superseded.as_mut()) && first.is_superseded());
    assert!(first.stands() && !is_ready(ended.as_mut()));

    publish(&live, &[("r2.token.primary", "two")]);
    assert!(is_ready(ended.as_mut()) && !first.stands());
    assert!(live.load().get("r1").is_none());
    assert_eq!(live.load().whole(), &["r2=two"]);

    // What comes back is another key, and the old one stays ended.
    publish(&live, &[("r1.token", "one"), ("r2.token.primary", "two")]);
    assert!(live.load().get("r1").unwrap().stands() && !first.stands());
    assert!(live.load().problems().iter().any(|problem| problem.code == "returned"));
}

#[test]
fn superseded_is_who_has_been_the_primary_and_lost_the_mark() {
    let live = live(BOTH, &[("r1.token.primary", "one"), ("r2.token", "two")]);
    let get = |id: &str| Arc::clone(live.load().get(id).unwrap());
    let mark = |id: &str| {
        let name = |of: &str| format!("{of}.token{}", if of == id { ".primary" } else { "" });
        publish(&live, &[(&name("r1"), "one"), (&name("r2"), "two")]);
    };
    let (r1, r2) = (get("r1"), get("r2"));
    assert!(!r1.is_superseded() && !r2.is_superseded(), "staged");
    let used = r1.hold();
    mark("r2");
    assert!(r1.is_superseded() && !r2.is_superseded());
    assert!(Arc::ptr_eq(&r1, &get("r1")) && Arc::ptr_eq(&r2, &get("r2")));

    // Rolled back: what was made with it since the first time stays superseded, what is made now is not.
    let mut changes = live.subscribe();
    mark("r1");
    let again = get("r1");
    assert!(!again.is_superseded() && r1.is_superseded() && r2.is_superseded());
    assert!(Arc::ptr_eq(&again, &live.primary().unwrap()));
    let change = changes.try_recv().unwrap();
    assert!(change.primary_changed());
    assert_eq!((change.added().count(), change.removed().count()), (0, 0));
    let reported = live.dir().report().sets[0].uses("r1");
    assert_eq!(reported, 1, "uses from before are counted on");
    drop(used);
    publish(&live, &[("r1.revoked", ""), ("r2.token.primary", "two")]);
    assert!(!again.stands() && !r1.stands(), "both are the revision");
}

#[test]
fn content_that_is_mended_keeps_its_key() {
    let live = live(LOGIN, &[("r1.token.primary", "one")]);
    let first = live.primary().unwrap();
    publish(&live, &[("r1.token.primary", "on\ne")]);
    assert!(live.load().state(&first).unwrap().held.is_some());
    publish(&live, &[("r1.token.primary", "one")]);
    assert!(live.load().state(&first).unwrap().held.is_none());
    assert!(Arc::ptr_eq(&first, &live.primary().unwrap()) && !first.is_superseded());
}

#[test]
fn a_revoked_primary_is_presented_on_as_another_key_until_there_is_another() {
    let live = live(LOGIN, &[("r1.token.primary", "one"), ("r2.token", "two")]);
    let first = live.primary().unwrap();
    publish(
        &live,
        &[("r1.token.primary", "one"), ("r1.revoked", ""), ("r2.token", "two")],
    );
    let set = live.snapshot();
    let kept = Arc::clone(set.primary().unwrap());
    assert!(!first.stands() && kept.stands());
    assert_eq!((kept.id().as_str(), kept.as_str()), ("r1", "one"));
    assert!(set.get("r1").is_none() && set.state(&kept).is_none());

    publish(
        &live,
        &[("r1.token", "one"), ("r1.revoked", ""), ("r2.token.primary", "two")],
    );
    assert!(!kept.stands());
    assert_eq!(live.primary().unwrap().as_str(), "two");
}

#[test]
fn signing_stops_with_its_key() {
    let live = live(SIGN, &[("r1.token.primary", "one"), ("r2.token", "two")]);
    publish(&live, &[("r1.revoked", ""), ("r2.token", "two")]);
    let stopped = live.primary().unwrap_err();
    assert!(
        matches!(&stopped, NoPrimary::Revoked { id } if *id == "r1"),
        "{stopped}"
    );
    assert_eq!(live.load().whole(), &["r2=two"]);
    publish(&live, &[("r1.revoked", ""), ("r2.token.primary", "two")]);
    assert_eq!(live.primary().unwrap().as_str(), "two");
}

#[test]
fn other_content_under_an_id_retires_what_is_presented_and_revokes_what_is_accepted() {
    for (usage, revoked) in [(LOGIN, false), (BOTH, true)] {
        let live = live(usage, &[("r1.token.primary", "one")]);
        let old = live.primary().unwrap();
        publish(&live, &[("r1.token.primary", "other")]);
        assert_eq!(live.primary().unwrap().as_str(), "other");
        assert_eq!(old.stands(), !revoked);
        assert!(old.is_superseded());
        publish(&live, &[("r1.token.primary", "a third")]);
        assert_eq!(old.stands(), !revoked);
        publish(&live, &[("r2.token.primary", "two"), ("r1.revoked", "")]);
        assert!(!old.stands(), "whatever it held");
    }
}

#[test]
fn anchors_that_stay_go_on_standing_in_a_larger_file_and_end_with_it() {
    let live = live(
        ACCEPT,
        &[("c1.token", "x a:0-9000000000"), ("c2.token", "y z:0-9000000000")],
    );
    let old = Arc::clone(live.load().get("c1").unwrap());
    publish(
        &live,
        &[
            ("c1.token", "x a:0-9000000000 b:0-9000000000"),
            ("c2.token", "y z:0-9000000000"),
        ],
    );
    let larger = Arc::clone(live.load().get("c1").unwrap());
    assert!(!Arc::ptr_eq(&old, &larger) && old.stands() && larger.stands());
    publish(
        &live,
        &[("c1.token", "x b:0-9000000000"), ("c2.token", "y z:0-9000000000")],
    );
    assert!(!old.stands() && !larger.stands());
    let last = Arc::clone(live.load().get("c1").unwrap());
    publish(&live, &[("c2.token", "y z:0-9000000000")]);
    assert!(!last.stands());
}

#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> SystemTime {
        at(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn time_alone_begins_and_ends_validity_and_a_clock_may_go_back() {
    let clock = Hands::default();
    clock.0.store(50, Ordering::SeqCst);
    let files = [("r1.token.primary", "one a:0-100"), ("r2.token", "two b:60-200")];
    let dir = Dir::in_memory_at(files, clock.clone());
    let live = dir.view(Words(BOTH)).unwrap();
    let pending = |id: &str| {
        let set = live.load();
        set.state(set.get(id).unwrap()).unwrap().pending
    };
    let go_to = |seconds| {
        clock.0.store(seconds, Ordering::SeqCst);
        dir.reload().unwrap();
    };
    assert!(pending("r2"));
    go_to(60);
    assert!(!pending("r2"));
    go_to(59);
    assert!(pending("r2"));
    // The last second of its validity counts whole.
    go_to(100);
    let expired = || live.load().problems().iter().any(|problem| problem.code == "expired");
    assert!(!expired());
    go_to(101);
    assert!(expired());
    assert_eq!(
        live.primary().unwrap().as_str(),
        "one",
        "an expired primary is still presented"
    );
}

#[test]
fn a_pending_primary_begins_by_itself() {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let soon = format!("two b:{}-9000000000", now + 2);
    let live = live(LOGIN, &[("r1.token.primary", "one")]);
    let mut changes = live.subscribe();
    publish(&live, &[("r1.token", "one"), ("r2.token.primary", &soon)]);
    assert_eq!(live.primary().unwrap().as_str(), "one");
    while live.primary().unwrap().as_str() == "one" {
        changes.recv_timeout(Duration::from_secs(20)).expect("nothing began");
    }
    assert_eq!(live.primary().unwrap().as_str(), "two");
}

#[test]
fn a_subscriber_is_told_the_difference_to_what_it_saw_last() {
    let live = live(BOTH, &[("r1.token.primary", "one")]);
    let mut changes = live.subscribe();
    assert!(changes.try_recv().is_none());
    publish(&live, &[("r1.token.primary", "one"), ("r2.token", "two")]);
    publish(&live, &[("r2.token.primary", "two"), ("r3.token", "three")]);
    let change = changes.recv();
    let ids = |ids: &mut dyn Iterator<Item = &keydir::RevisionId>| ids.map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ids(&mut change.added()), ["r2", "r3"]);
    assert_eq!(ids(&mut change.removed()), ["r1"]);
    assert!(change.primary_changed());
    assert!(changes.try_recv().is_none());

    // As a stream: pending until something happens, and woken then.
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut changes).poll_next(&mut context).is_pending());
    publish(&live, &[("r3.token.primary", "three")]);
    let Poll::Ready(Some(change)) = Pin::new(&mut changes).poll_next(&mut context) else {
        panic!("the stream was not ready");
    };
    assert_eq!(change.now.primary().unwrap().as_str(), "three");
}

#[test]
fn a_blocked_subscriber_is_woken() {
    let live = live(BOTH, &[("r1.token.primary", "one")]);
    let mut changes = live.subscribe();
    let waits = std::thread::spawn(move || changes.recv().now.primary().unwrap().to_string());
    publish(&live, &[("r2.token.primary", "two")]);
    assert_eq!(waits.join().unwrap(), "two");
}

#[test]
fn a_cached_reader_sees_every_swap() {
    let live = live(BOTH, &[("r1.token.primary", "one")]);
    let mut reader = live.reader();
    assert_eq!(reader.load().primary().unwrap().as_str(), "one");
    publish(&live, &[("r2.token.primary", "two")]);
    assert_eq!(reader.load().primary().unwrap().as_str(), "two");
}

#[test]
fn views_of_one_directory_name_the_same_publication() {
    let dir = Dir::in_memory([
        ("r1.token.primary", "one"),
        (".rotation.json", r#"{"publication": "p1"}"#),
    ]);
    let (a, b) = (dir.view(Words(LOGIN)).unwrap(), dir.view(Words(BOTH)).unwrap());
    assert_eq!(a.load().publication(), Some("p1"));
    dir.publish([
        ("r2.token.primary", "two"),
        (".rotation.json", r#"{"publication": "p2"}"#),
    ])
    .unwrap();
    assert_eq!(a.load().generation(), b.load().generation());
    assert_eq!(
        (a.load().publication(), b.load().publication()),
        (Some("p2"), Some("p2"))
    );
    assert!(a.load().is_adopted());
}

#[test]
fn the_report_counts_what_rests_on_a_revision_after_it_is_gone() {
    let live = live(BOTH, &[("census1.token.primary", "one")]);
    let key = live.primary().unwrap();
    let uses = [key.hold(), key.hold()];
    key.touch();
    drop(key);
    publish(&live, &[("census2.token.primary", "two")]);
    let of = |id: &str| {
        let sets = live.dir().report().sets;
        let revisions = sets.into_iter().next().unwrap().revisions;
        revisions
            .into_iter()
            .find(|(found, _)| found == id)
            .map(|(_, revision)| revision)
    };
    let gone = of("census1").unwrap();
    assert_eq!((gone.in_force, gone.uses), (false, 2));
    assert!(gone.last_use.is_some());
    let current = of("census2").unwrap();
    assert_eq!(
        (current.in_force, current.primary, current.uses, current.last_use),
        (true, true, 0, None)
    );
    drop(uses);
    assert!(of("census1").is_none());
    let json = serde_json::to_value(live.dir().report()).unwrap();
    assert_eq!(json["sets"][0]["revisions"]["census2"]["primary"], true);
    assert_eq!(json["sets"][0]["use"], "login");
}

#[test]
fn errors_name_the_directory_the_reason_and_what_to_do() {
    for (files, expected) in [
        (
            vec![("r1.token", "a"), ("r2.token", "b")],
            "key directory (memory): as login: nothing to present: no revision is marked .primary: mark one",
        ),
        (
            vec![("r1.token.primary", "a b")],
            "key directory (memory): as login: nothing to present: the primary r1 cannot be used (no dates): publish \
             another under a new id",
        ),
        (
            vec![],
            "key directory (memory): as login: nothing to present: no revision has all parts of the use: publish one",
        ),
    ] {
        let error = Dir::in_memory(files).view(Words(LOGIN)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = Dir::in_memory([("r1.token", "a b"), ("r2.other", "x")])
        .view(Words(ACCEPT))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "key directory (memory): as accept: nothing to accept: publish a usable revision; r1: no dates (unusable, \
         bad): publish a correct revision under a new id"
    );
}

#[test]
fn handles_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Dir>();
    crosses::<Live<Words>>();
    crosses::<keydir::KeySet<Words>>();
    crosses::<keydir::Key<String>>();
    crosses::<keydir::Use>();
    fn moves<T: Send>() {}
    moves::<keydir::Reader<Words>>();
    moves::<keydir::Changes<Words>>();
    moves::<keydir::Publisher>();
}

#[test]
fn whoever_sees_a_set_without_a_key_is_told_that_the_key_does_not_stand() {
    let dir = Dir::in_memory([("r0.token.primary", "0")]);
    let live = dir.view(Words(BOTH)).unwrap();
    let (watched, done) = (live.clone(), Arc::new(AtomicBool::new(false)));
    let seen = Arc::new(AtomicU64::new(0));
    let (end, sees) = (Arc::clone(&done), Arc::clone(&seen));
    let watcher = std::thread::spawn(move || {
        let mut before = watched.primary().unwrap();
        while !end.load(Ordering::Relaxed) {
            let now = watched.primary().unwrap();
            if !Arc::ptr_eq(&now, &before) {
                assert!(
                    !before.stands(),
                    "{} was revoked by the set with {}",
                    before.id(),
                    now.id()
                );
                sees.fetch_add(1, Ordering::Relaxed);
                before = now;
            }
        }
    });
    // A machine that has much else to do lets the watcher see few of them.
    let mut n = 0;
    while !watcher.is_finished() && (n < 5_000 || seen.load(Ordering::Relaxed) <= 100) {
        n += 1;
        dir.publish([(format!("r{n}.token.primary"), n.to_string())]).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
}
