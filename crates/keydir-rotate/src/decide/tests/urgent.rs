//! What does not wait: certificates that are about to expire, and what somebody else may have.

use super::*;

/// With a certificate of 30 days as its primary, which is r2; r1 is retiring.
fn certified() -> Place {
    let mut place = Place::begun().with_consumers(&["api"]);
    place.policy.every = None;
    place.policy.deadline = None;
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.all_adopt();
    assert_eq!(place.does(), Step::Promote(id("r2")));
    let now = place.now.wall;
    place.observed.lives.insert(id("r1"), (BEGIN, now + 5 * DAY));
    place.observed.lives.insert(id("r2"), (now, now + 30 * DAY));
    place
}

#[test]
fn a_certificate_is_renewed_though_the_one_before_is_still_waited_for() {
    let mut place = certified();
    place.observed.consumers[0].said = None;
    place.passes(4 * DAY);
    assert_eq!(place.blocked(), [Reason::Silent("api".into())]);
    // Nobody takes what has expired, so nobody has to be asked.
    place.passes(DAY + 10);
    assert_eq!(place.step(), Some(Step::Retire(id("r1"))));
    place.observed.lives.remove(&id("r1"));
    place.passes(15 * DAY);
    assert_eq!(place.does(), Step::Stage);
    assert_eq!(place.names(), "r1.key r2.key.primary r3.key");
    place.passes(120);
    assert!(place.blocked().contains(&Reason::Silent("api".into())));
    // At five sixths of its life nobody is waited for.
    place.passes(5 * DAY);
    let decision = place.decision();
    assert_eq!(decision.step(), Some(&Step::Promote(id("r3"))));
    assert_eq!(decision.overdue, [Reason::Silent("api".into())]);
}

#[test]
fn no_window_is_waited_for_until_a_certificate_has_expired() {
    let mut place = certified();
    place.observed.consumers.clear();
    place.policy.windows = "Sun 02:00-04:00".parse().unwrap();
    place.passes(20 * DAY);
    assert_eq!(place.does(), Step::Stage);
    place.passes(120);
    assert_eq!(place.does(), Step::Promote(id("r3")));
}

#[test]
fn what_is_refused_for_ever_holds_no_rotation_up() {
    let mut place = Place::begun();
    place.change(|set| set.compromise(&id("r1"), 0));
    for step in [Step::Stage, Step::Promote(id("r2")), Step::Revoke(id("r1"))] {
        assert_eq!(place.does(), step);
    }
    let mut place = place.with_consumers(&["api"]);
    place.policy.deadline = None;
    place.observed.consumers[0].said = None;
    place.passes(DAY);
    let now = place.now.wall;
    place.observed.lives.insert(id("r2"), (now - 20 * DAY, now + 10 * DAY));
    assert_eq!(place.step(), Some(Step::Stage));
}

#[test]
fn a_compromised_revision_is_not_promoted_in_the_place_of_another() {
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    place.change(|set| {
        set.compromise(&id("r1"), 0);
        set.compromise(&id("r2"), 0);
    });
    let steps: Vec<Step> = (0..4).map(|_| place.does()).collect();
    let expected = [
        Step::Stage,
        Step::Promote(id("r3")),
        Step::Revoke(id("r1")),
        Step::Revoke(id("r2")),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn one_of_two_marks_is_refused_at_its_time() {
    let mut place = Place::new();
    place.files = ["a.key.primary", "b.key.primary"]
        .map(|name| (name.to_owned(), "1".into()))
        .into();
    place.change(|set| set.compromise(&id("a"), BEGIN + HOUR));
    assert_eq!(place.blocked(), [Reason::Ambiguous(vec![id("a"), id("b")])]);
    place.passes(HOUR);
    assert_eq!(place.does(), Step::Revoke(id("a")));
    assert_eq!(place.step(), None);
}

#[test]
fn a_marker_on_all_that_there_is_begins_anew() {
    let mut place = Place::begun();
    place.files.insert("r1.revoked".into(), "".into());
    place.change(|_| {});
    assert_eq!(place.does(), Step::Begin);
    assert_eq!(place.names(), "r1.key r1.revoked r2.key.primary");
}

#[test]
fn what_was_made_with_a_compromised_key_is_made_anew_before_it_goes() {
    let mut place = Place::begun();
    place.policy.migrates = true;
    place.change(|set| set.compromise(&id("r1"), BEGIN + DAY));
    place.does();
    place.passes(120);
    assert_eq!(place.does(), Step::Promote(id("r2")));
    assert_eq!(place.step(), Some(Step::Migrate(id("r1"))), "as long as it is accepted");
    // It did not come to that in time: it is refused, and does not go.
    place.passes(DAY);
    assert_eq!(place.does(), Step::Revoke(id("r1")));
    place.passes(DAY);
    assert_eq!(place.does(), Step::Migrate(id("r1")));
    assert_eq!(place.does(), Step::Retire(id("r1")));

    // With one that was never presented nothing was made.
    place.change(Set::request);
    place.does();
    place.change(|set| set.compromise(&id("r3"), 0));
    assert_eq!(place.does(), Step::Revoke(id("r3")));
    place.passes(DAY);
    assert_eq!(place.does(), Step::Retire(id("r3")));
}

#[test]
fn a_pause_holds_a_beginning_back() {
    let mut place = Place::new();
    place.change(|set| set.pause(Some("not yet".into())));
    assert_eq!(place.blocked(), [Reason::Paused("not yet".into())]);
}

#[test]
fn a_consumer_from_the_future_confirms_nothing() {
    let mut place = Place::begun().with_consumers(&["api"]);
    place.change(Set::request);
    place.does();
    place.passes(120);
    place.all_adopt();
    place.observed.consumers[0].said.as_mut().unwrap().checked += DAY;
    assert_eq!(place.blocked(), [Reason::Ahead("api".into(), DAY)]);
}

#[test]
fn no_id_is_used_twice_though_what_was_remembered_is_lost() {
    let mut place = Place::begun();
    place.change(Set::request);
    place.does();
    // r2 goes, and with it goes what is remembered.
    place.change(|set| set.remove(&id("r2")));
    place.observed.state = None;
    place.files.remove(".rotation.json");
    assert_eq!(place.does(), Step::Adopt);
    let next = place.observed.state.as_ref().unwrap().next_id().unwrap();
    assert_eq!(next, id(&format!("r{}", BEGIN + 1)));
}

#[test]
fn what_others_have_written_stays() {
    let mut place = Place::begun();
    let text =
        r#"{"version": 1, "publication": "p", "published": 1, "settled": 1, "owner": {"team": "x"}, "paused": "y"}"#;
    place.files.insert(".rotation.json".into(), text.into());
    place.observed.state = State::read(&place.files[".rotation.json"]).unwrap();
    place.change(|set| set.pause(None));
    let json: serde_json::Value = serde_json::from_slice(place.files[".rotation.json"].expose()).unwrap();
    assert_eq!(json["owner"]["team"], "x");
    assert_eq!(json.get("paused"), None);
    // Also where somebody only gives a publication's id.
    place
        .files
        .insert(".rotation.json".into(), r#"{"publication": "p", "owner": "z"}"#.into());
    place.observed.state = None;
    place.change(|_| {});
    let json: serde_json::Value = serde_json::from_slice(place.files[".rotation.json"].expose()).unwrap();
    assert_eq!((&json["owner"], &json["version"]), (&"z".into(), &1.into()));
}

#[test]
fn a_part_of_another_use_bears_a_mark_too() {
    let mut set = Set::new(Files::new(), None, BEGIN);
    set.stage(&id("r1"), vec![("blob".to_owned(), "1".into())]);
    set.promote(&id("r1"));
    // One that is not there takes no mark away.
    set.promote(&id("r9"));
    let files = set.publish("p".into());
    assert!(files.contains_key("r1.blob.primary"), "{:?}", files.keys());
}

#[test]
fn ids_that_differ_only_in_case_are_not_made() {
    let holding = Holding::of_names(["R8.key.primary"]);
    let mut state = State::of(&holding, None, 0);
    state.number = 0;
    assert_eq!(State::of(&holding, Some(&state), 0).next_id(), Some(id("r9")));
}
