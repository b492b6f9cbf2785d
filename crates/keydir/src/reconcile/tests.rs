//! Any sequence of publications, faults and time keeps the laws, step by step. The cases that say what each rule means
//! stand in integration/conformance.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::secret::Fingerprint;
use crate::uses;
use crate::view::Unusable;

/// What lies under one id in one publication.
#[derive(Clone, Debug, Default)]
struct Lies {
    content: Option<Content>,
    marked: bool,
    revoked: bool,
}

#[derive(Clone, Debug)]
enum Content {
    Good {
        text: u8,
        begins: u64,
        ends: u64,
    },
    Broken,
    /// Named, but no candidate.
    Partial,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<Lies>),
    Fault,
    Later(u64),
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn offers(lies: &[Lies], dated: bool) -> Offers<u8> {
    let mut offers = Offers::new();
    for (number, lies) in lies.iter().enumerate() {
        if lies.content.is_none() && !lies.revoked {
            continue;
        }
        let broken = || Err(Unusable::new("broken", "it is broken"));
        let (made, content) = match &lies.content {
            Some(Content::Good { text, begins, ends }) => {
                let dates = format!("{text} {begins} {ends}");
                let fingerprint = Fingerprint::of(if dated {
                    dates.as_bytes()
                } else {
                    std::slice::from_ref(text)
                });
                let pieces = match dated {
                    true => vec![Piece {
                        fingerprint,
                        not_before: at(*begins),
                        not_after: at(*ends),
                    }],
                    false => Vec::new(),
                };
                (
                    Ok(Arc::new(Made::for_tests(fingerprint, *text, pieces))),
                    Some(fingerprint),
                )
            }
            _ => (broken(), None),
        };
        let offer = Offer {
            marked: lies.marked,
            revoked: lies.revoked,
            named: lies.content.is_some(),
            candidate: matches!(lies.content, Some(Content::Good { .. } | Content::Broken)),
            made,
            content,
        };
        offers.insert(format!("r{number}").parse().unwrap(), offer);
    }
    offers
}

fn lies() -> impl Strategy<Value = Lies> {
    let good = (0_u8..3, 0_u64..60, 40_u64..140).prop_map(|(text, begins, ends)| Content::Good { text, begins, ends });
    let content = prop_oneof![
        5 => good.prop_map(Some),
        1 => Just(Some(Content::Broken)),
        1 => Just(Some(Content::Partial)),
        2 => Just(None),
    ];
    (content, prop::bool::weighted(0.4), prop::bool::weighted(0.15)).prop_map(|(content, marked, revoked)| Lies {
        content,
        marked,
        revoked,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(lies(), 4).prop_map(Step::Publish),
        1 => Just(Step::Fault),
        2 => (1_u64..40).prop_map(Step::Later),
    ];
    prop::collection::vec(step, 1..12)
}

/// The uses whose rules differ: which present, which accept, which stop; with dates and without.
const USES: [(&Usage, bool); 5] = [
    (&uses::TOKEN, false),
    (&uses::TLS_IDENTITY, true),
    (&uses::ANCHORS, true),
    (&uses::TOKEN_CHECK, false),
    (&uses::SYMMETRIC, false),
];

/// What can be compared of an outcome.
fn summary(outcome: &Outcome<u8>) -> Vec<(RevisionId, u64, u8, Option<Hold>)> {
    let in_force = outcome.state.in_force.iter();
    in_force
        .map(|(id, entry)| (id.clone(), entry.derivation, *entry.made.item, entry.hold.clone()))
        .collect()
}

struct Before {
    in_force: BTreeMap<RevisionId, (u64, Fingerprint)>,
    presented: Presented,
    mark_seen: bool,
}

fn check_laws(usage: &Usage, before: &Before, input: Option<&Offers<u8>>, now: SystemTime, outcome: &Outcome<u8>) {
    let in_force = &outcome.state.in_force;
    let revoked: Vec<&RevisionId> = outcome
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Revoked(id, _) => Some(id),
            _ => None,
        })
        .collect();
    let Some(offers) = input else {
        // Law: a fault revokes nothing and brings nothing.
        assert!(revoked.is_empty());
        assert!(in_force.keys().eq(before.in_force.keys()));
        assert!(
            in_force
                .values()
                .all(|entry| entry.hold == Some(Hold::Unreadable) || entry.hold.is_none())
        );
        return;
    };
    let named = |id: &RevisionId| offers.get(id).is_some_and(|offer| offer.named);
    let counts = in_force
        .iter()
        .any(|(id, entry)| named(id) && entry.made.is_valid_at(now));
    for id in before.in_force.keys() {
        let marker = offers.get(id).is_some_and(|offer| offer.revoked);
        let absent = !named(id) && !marker;
        let gone = marker || absent && counts;
        // Law: revocation is an act, and every such act revokes.
        assert_eq!(in_force.contains_key(id), !gone, "{id}");
        assert_eq!(revoked.contains(&id), gone, "{id}");
    }
    for (id, entry) in in_force {
        let offer = offers.get(id);
        let good = offer
            .and_then(|offer| offer.made.as_ref().ok())
            .filter(|_| offer.is_some_and(|offer| offer.candidate));
        match before.in_force.get(id) {
            // Law: what comes into force is in the publication, usable, and not revoked.
            None => assert!(good.is_some_and(|made| made.content == entry.made.content)),
            Some((derivation, text)) => {
                // Law: unchanged content keeps what was derived from it; other content never does.
                assert_eq!(*derivation == entry.derivation, *text == entry.made.content);
                // Law: what is held says so.
                let same = good.is_some_and(|made| made.content == entry.made.content);
                let ended = usage.accepts && entry.made.is_expired_at(now);
                assert!(same || entry.hold.is_some() || ended, "{id}");
            }
        }
    }
    // Law: nobody moves to a revision that is not marked, once a mark was seen.
    if let Presented::InForce(id) = &outcome.presented {
        let moved = before.presented != Presented::InForce(id.clone());
        let marked = offers.get(id).is_some_and(|offer| offer.marked);
        let came_back = outcome.state.last_primary.as_ref() == Some(id) && before.presented == Presented::Kept;
        if moved && before.mark_seen && before.presented != Presented::Nothing {
            assert!(marked || came_back, "moved to {id} without a mark");
        }
    }
    // Law: presenting does not stop, except where a revoked key must not work.
    if before.presented != Presented::Nothing && outcome.presented == Presented::Nothing {
        assert!(usage.stops);
    }
    if outcome.presented == Presented::Kept {
        assert!(!usage.stops);
    }
}

fn input(step: &Step, last: &mut Option<Vec<Lies>>, now: &mut u64, dated: bool) -> (Input<u8>, bool) {
    match step {
        Step::Publish(lies) => {
            *last = Some(lies.clone());
            (Input::New(offers(lies, dated)), true)
        }
        Step::Later(seconds) => {
            *now += seconds;
            match last {
                Some(lies) => (Input::Again(offers(lies, dated)), true),
                None => (Input::Unreadable, false),
            }
        }
        Step::Fault => (Input::Unreadable, false),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_laws(steps in steps(), which in 0..USES.len()) {
        let (usage, dated) = USES[which];
        let (mut state, mut last, mut now) = (State::default(), None, 50);
        let mut before = Before {
            in_force: BTreeMap::new(),
            presented: Presented::Nothing,
            mark_seen: false,
        };
        for step in &steps {
            let (input, readable) = input(step, &mut last, &mut now, dated);
            let offers = readable.then(|| offers(last.as_deref().unwrap(), dated));
            let outcome = reconcile(usage, state, input, at(now));
            check_laws(usage, &before, offers.as_ref(), at(now), &outcome);
            let (seen, presented) = (summary(&outcome), outcome.presented.clone());

            // The same again changes nothing.
            let again = match offers {
                Some(offers) => Input::Again(offers),
                None => Input::Unreadable,
            };
            let mut outcome = reconcile(usage, outcome.state, again, at(now));
            prop_assert!(outcome.events.is_empty());
            prop_assert_eq!(&summary(&outcome), &seen);
            prop_assert_eq!(&outcome.presented, &presented);
            prop_assert!(outcome.next.is_none_or(|next| next > at(now)));

            let in_force = outcome.state.in_force.iter();
            before = Before {
                in_force: in_force.map(|(id, entry)| (id.clone(), (entry.derivation, entry.made.content))).collect(),
                presented: outcome.presented,
                mark_seen: outcome.state.mark_seen,
            };
            state = std::mem::take(&mut outcome.state);
        }
    }
}

/// The check itself must be able to fail.
#[test]
#[should_panic(expected = "r0")]
fn a_reader_that_ignores_markers_would_be_caught() {
    let publish = |revoked| {
        let good = Content::Good {
            text: 1,
            begins: 0,
            ends: 100,
        };
        vec![Lies {
            content: Some(good),
            marked: true,
            revoked,
        }]
    };
    let outcome = reconcile(
        &uses::TOKEN,
        State::default(),
        Input::New(offers(&publish(false), false)),
        at(0),
    );
    let before = Before {
        in_force: outcome
            .state
            .in_force
            .iter()
            .map(|(id, entry)| (id.clone(), (entry.derivation, entry.made.content)))
            .collect(),
        presented: outcome.presented.clone(),
        mark_seen: true,
    };
    check_laws(
        &uses::TOKEN,
        &before,
        Some(&offers(&publish(true), false)),
        at(0),
        &outcome,
    );
}

/// A CRL changes nothing of what was derived from the rest, but it must arrive; the same again must not.
#[test]
fn the_same_content_with_another_crl_is_taken_under_the_same_derivation() {
    let made = |whole: &[u8]| {
        let content = Fingerprint::of(b"content");
        let mut made = Made::for_tests(content, 1_u8, Vec::new());
        made.whole = Fingerprint::of(whole);
        Arc::new(made)
    };
    let id: RevisionId = "r1".parse().unwrap();
    let publish = |state, made: &Arc<Made<u8>>| {
        let offer = Offer {
            marked: true,
            revoked: false,
            named: true,
            candidate: true,
            made: Ok(Arc::clone(made)),
            content: Some(made.content),
        };
        let offers = Offers::from([(id.clone(), offer)]);
        let outcome = reconcile(&uses::ANCHORS, state, Input::New(offers), at(0));
        assert!(outcome.events.is_empty());
        let entry = &outcome.state.in_force[&id];
        let is = (Arc::as_ptr(&entry.made), entry.derivation);
        (outcome.state, is)
    };
    let (first, again, other) = (made(b"one crl"), made(b"one crl"), made(b"another crl"));
    let (state, is) = publish(State::default(), &first);
    let (state, still) = publish(state, &again);
    assert_eq!(still, is, "what was parsed anew is the same");
    let (_, now) = publish(state, &other);
    assert_eq!(now, (Arc::as_ptr(&other), is.1));
}

#[test]
fn copies_are_found_though_they_cannot_be_used() {
    let broken = || Offer::<u8> {
        marked: false,
        revoked: false,
        named: true,
        candidate: true,
        made: Err(Unusable::new("broken", "it is broken")),
        content: Some(Fingerprint::of(b"the same")),
    };
    let ids = ["r1", "r2"].map(|id| id.parse::<RevisionId>().unwrap());
    let offers = Offers::from(ids.map(|id| (id, broken())));
    let outcome = reconcile(&uses::TOKEN_CHECK, State::default(), Input::New(offers), at(0));
    let problems = outcome.problems.iter().filter(|problem| problem.code == "duplicate");
    assert_eq!(
        problems.map(|problem| problem.subject.as_str()).collect::<Vec<_>>(),
        ["r1", "r2"]
    );
}

#[test]
fn of_many_copies_each_is_reported_but_does_not_name_all() {
    let good = |_| Lies {
        content: Some(Content::Good {
            text: 1,
            begins: 0,
            ends: 100,
        }),
        ..Lies::default()
    };
    for (copies, end) in [
        (5, "under r0, r1, r2, r3, r4"),
        (7, "under r0, r1, r2, r3, r4 and 2 more"),
    ] {
        let lies: Vec<_> = (0..copies).map(good).collect();
        let outcome = reconcile(&uses::TOKEN, State::default(), Input::New(offers(&lies, false)), at(0));
        let problems = outcome.problems.iter().filter(|problem| problem.code == "duplicate");
        let messages: Vec<_> = problems.map(|problem| problem.message.as_str()).collect();
        assert_eq!(messages.len(), copies);
        assert!(messages.iter().all(|message| message.ends_with(end)), "{messages:?}");
    }
}

#[test]
fn the_next_moment_is_the_first_begin_or_end_that_is_to_come() {
    let lies = [(10, 50), (20, 40)].map(|(begins, ends)| Lies {
        content: Some(Content::Good { text: 1, begins, ends }),
        marked: begins == 10,
        revoked: false,
    });
    for (now, expected) in [
        (0, Some(10)),
        (10, Some(20)),
        (15, Some(20)),
        (20, Some(41)),
        (45, Some(51)),
        (60, None),
    ] {
        let outcome = reconcile(
            &uses::ANCHORS,
            State::default(),
            Input::New(offers(&lies, true)),
            at(now),
        );
        assert_eq!(outcome.next, expected.map(at), "at {now}");
    }
}

/// Anchors of these certificates, with a CRL or without.
fn anchors(certificates: &[u8], crl: Option<u8>) -> Arc<Made<u8>> {
    let piece = |certificate| Piece {
        fingerprint: Fingerprint::of(&[certificate]),
        not_before: at(0),
        not_after: at(1000),
    };
    let content = Fingerprint::of_all([b"anchors", certificates]);
    let mut made = Made::for_tests(
        content,
        crl.unwrap_or_default(),
        certificates.iter().copied().map(piece).collect(),
    );
    if let Some(crl) = crl {
        made.whole = Fingerprint::of_all([b"anchors", certificates, &[crl]]);
        made.moments.push(at(crl.into()));
    }
    Arc::new(made)
}

#[test]
fn while_a_crl_is_gone_the_certificates_that_stay_keep_the_last() {
    type Steps<'a> = &'a [&'a [(&'a str, &'a [u8], Option<u8>)]];
    type Kept<'a> = &'a [(&'a str, &'a [u8])];
    // Each step, and by revision the CRLs of former contents that go on after it.
    let cases: [(&str, Steps<'_>, Kept<'_>); 11] = [
        ("there", &[&[("r1", b"A", Some(7))]], &[]),
        ("never there", &[&[("r1", b"A", None)], &[("r1", b"AB", None)]], &[]),
        (
            "gone",
            &[&[("r1", b"A", Some(7))], &[("r1", b"A", None)]],
            &[("r1", &[7])],
        ),
        (
            "gone for long",
            &[
                &[("r1", b"A", Some(7))],
                &[("r1", b"A", None)],
                &[("r1", b"A", None), ("r2", b"B", None)],
            ],
            &[("r1", &[7])],
        ),
        (
            "back",
            &[
                &[("r1", b"A", Some(7))],
                &[("r1", b"A", None)],
                &[("r1", b"A", Some(8))],
            ],
            &[],
        ),
        (
            "gone with other content, in which a certificate stays",
            &[&[("r1", b"AB", Some(7))], &[("r1", b"AC", None)]],
            &[("r1", &[7])],
        ),
        (
            "and again",
            &[
                &[("r1", b"AB", Some(7))],
                &[("r1", b"AC", None)],
                &[("r1", b"AD", None)],
            ],
            &[("r1", &[7])],
        ),
        (
            "gone with all certificates",
            &[&[("r1", b"AB", Some(7))], &[("r1", b"C", None)]],
            &[],
        ),
        (
            "gone with its revision, of which a certificate stays in another",
            &[&[("r1", b"A", Some(7))], &[("r2", b"AB", None)]],
            &[("r2", &[7])],
        ),
        (
            "another revision has one for it",
            &[
                &[("r1", b"A", Some(7)), ("r2", b"A", Some(8))],
                &[("r1", b"A", None), ("r2", b"A", Some(8))],
            ],
            &[],
        ),
        (
            "two at once",
            &[
                &[("r1", b"A", Some(7)), ("r2", b"B", Some(8))],
                &[("r3", b"AB", None), ("r4", b"C", Some(9))],
            ],
            &[("r3", &[7, 8])],
        ),
    ];
    for (case, steps, expected) in cases {
        let mut state = State::default();
        let mut problems = Vec::new();
        for step in steps {
            let offer = |(id, certificates, crl): &(&str, &[u8], Option<u8>)| {
                let made = anchors(certificates, *crl);
                let offer = Offer {
                    marked: false,
                    revoked: false,
                    named: true,
                    candidate: true,
                    content: Some(made.content),
                    made: Ok(made),
                };
                (id.parse().unwrap(), offer)
            };
            let input = Input::New(step.iter().map(offer).collect());
            let outcome = reconcile(&uses::ANCHORS, state, input, at(1));
            // A fault changes nothing of it, and neither does time.
            let outcome = reconcile(&uses::ANCHORS, outcome.state, Input::Unreadable, at(2));
            let mut state_again = outcome.state;
            let again = std::mem::take(&mut state_again.offers);
            let outcome = reconcile(&uses::ANCHORS, state_again, Input::Again(again), at(3));
            let crls = outcome.state.in_force.values().flat_map(|entry| &entry.crls);
            let first = crls.map(|made| at((*made.item).into())).min();
            assert!(first.is_none_or(|first| outcome.next <= Some(first)), "{case}");
            state = outcome.state;
            problems = outcome.problems;
        }
        let kept = state.in_force.iter().filter(|(_, entry)| !entry.crls.is_empty());
        let items = |entry: &InForce<u8>| entry.crls.iter().map(|made| *made.item).collect::<Vec<_>>();
        let kept: Vec<_> = kept.map(|(id, entry)| (id.as_str(), items(entry))).collect();
        let expected: Vec<_> = expected.iter().map(|(id, crls)| (*id, crls.to_vec())).collect();
        assert_eq!(kept, expected, "{case}");
        let told = problems.iter().filter(|problem| problem.code == "crl-gone");
        let told: Vec<_> = told.map(|problem| problem.subject.as_str()).collect();
        assert_eq!(told, expected.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{case}");
    }
}
