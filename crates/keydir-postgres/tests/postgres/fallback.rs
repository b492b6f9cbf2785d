//! Another revision in place of a refused one: when, which, how often.

use std::sync::Arc;
use std::time::Instant;

use keydir_postgres::{Login, Refused, Try};
use tokio::sync::Barrier;

use crate::directory::{login, login_with, logins, password, plain, primary};
use crate::server::{Database, PATIENCE, eventually};

async fn with_roles(revisions: &[&str]) -> Database {
    let database = Database::new().await;
    for revision in revisions {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    database
}

async fn revision(login: &Login) -> String {
    let (client, lease) = login.connect().await.unwrap();
    let row = client.query_one("SELECT session_user::text", &[]).await.unwrap();
    let user: String = row.get(0);
    assert!(
        user.ends_with(&format!("_{}", lease.revision())),
        "{user} by {}",
        lease.revision()
    );
    lease.revision().to_string()
}

/// Connects until it is with this revision.
async fn until_it_is(login: &Login, wanted: &str) {
    let end = Instant::now() + PATIENCE;
    while revision(login).await != wanted {
        assert!(Instant::now() < end, "it never came to {wanted}");
        tokio::task::yield_now().await;
    }
}

/// How many logins with a refused revision the back-off allows in this time: at once, and 1, 3, 7, .. seconds later.
pub(crate) fn steps(since: Instant) -> usize {
    let seconds = since.elapsed().as_secs();
    1 + (1..20).take_while(|step| (1_u64 << step) - 1 <= seconds).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_primary_is_replaced_until_the_server_takes_it() {
    let database = with_roles(&["r1"]).await;
    database.create("r2", "PASSWORD 'not yet'").await;
    let (_dir, login) = plain(&database, logins(&database, &["r1", "r2"]));
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(revision(&login).await, "r1");
    }
    let refused = database.refused("r2");
    assert!((1..=steps(begun)).contains(&refused), "{refused}");
    let role = database.role("r2");
    database
        .sql(&format!("ALTER ROLE {role} PASSWORD '{}'", password("r2")))
        .await;
    until_it_is(&login, "r2").await;
    for _ in 0..5 {
        assert_eq!(revision(&login).await, "r2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_primary_is_tried_beside_the_requests() {
    let database = with_roles(&["r1", "r3"]).await;
    database.create("r2", "PASSWORD 'another'").await;
    let (dir, login) = plain(&database, logins(&database, &["r1"]));
    assert_eq!(revision(&login).await, "r1");

    // A bad one costs no request anything.
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    let begun = Instant::now();
    for _ in 0..30 {
        assert_eq!(revision(&login).await, "r1");
    }
    assert!(eventually(|| database.refused("r2") >= 1));
    assert!(database.refused("r2") <= steps(begun), "{}", database.refused("r2"));

    // A good one is used once it is known.
    dir.publish(logins(&database, &["r1", "r3"])).unwrap();
    assert_eq!(revision(&login).await, "r1");
    until_it_is(&login, "r3").await;
    assert_eq!(revision(&login).await, "r3");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_workers_are_refused_once_a_step() {
    let database = with_roles(&["r1"]).await;
    database.create("r2", "PASSWORD 'another'").await;
    let (dir, login) = plain(&database, logins(&database, &["r1"]));
    assert_eq!(revision(&login).await, "r1");
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    let begun = Instant::now();
    let workers = (0..8).map(|_| {
        let login = login.clone();
        tokio::spawn(async move {
            let mut connections = 0;
            while begun.elapsed().as_secs() < 4 {
                assert_eq!(revision(&login).await, "r1");
                connections += 1;
            }
            connections
        })
    });
    let mut connections = 0;
    for worker in workers.collect::<Vec<_>>() {
        connections += worker.await.unwrap();
    }
    let refused = database.refused("r2");
    assert!(
        (1..=steps(begun)).contains(&refused),
        "{refused} refused, {connections} connections"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_herd_at_the_start() {
    let database = with_roles(&["r1"]).await;
    database.create("r2", "PASSWORD 'another'").await;
    let start = |login: Login, workers: usize| {
        let barrier = Arc::new(Barrier::new(workers));
        let workers = (0..workers).map(move |_| {
            let (login, barrier) = (login.clone(), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                login.connect().await.map(|(_, lease)| lease.revision().to_string())
            })
        });
        workers.collect::<Vec<_>>()
    };

    // Of eight that start at once with a primary that is refused, all get in by the other.
    let (_dir, login) = plain(&database, logins(&database, &["r1", "r2"]));
    let begun = Instant::now();
    for worker in start(login, 8) {
        assert_eq!(worker.await.unwrap().unwrap(), "r1");
    }
    let refused = database.refused("r2");
    assert!((1..=steps(begun)).contains(&refused), "{refused}");

    // And where there is no other, all hear of it, from one login.
    let before = database.refused("r2");
    let (_dir, login) = plain(&database, logins(&database, &["r2"]));
    let begun = Instant::now();
    for worker in start(login, 8) {
        let error = worker.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("with r2: "), "{error}");
    }
    let refused = database.refused("r2") - before;
    assert!((1..=steps(begun)).contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_other_at_most_and_then_silence() {
    let database = with_roles(&[]).await;
    for revision in ["r1", "r2", "r3"] {
        database.create(revision, "PASSWORD 'another'").await;
    }
    let (_dir, plain) = plain(&database, logins(&database, &["r1", "r2", "r3"]));
    let error = plain.connect().await.unwrap_err();
    assert_eq!(error.tries().len(), 2, "{error}");
    let told = error.to_string();
    assert!(told.contains("with r3: ") && told.contains("with r2: "), "{told}");
    assert_eq!(["r1", "r2", "r3"].map(|revision| database.refused(revision)), [0, 1, 1]);
    assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");

    // The third is tried by the next; and once none is left, each error says how all were refused.
    let error = plain.connect().await.unwrap_err();
    assert!(error.to_string().contains("with r1: "), "{error}");
    let error = loop {
        let error = plain.connect().await.unwrap_err();
        if error.tries().len() > 2 {
            break error;
        }
    };
    let told = error.to_string();
    assert!(told.contains("not tried for another"), "{told}");
    let refused = |failed: &Try| failed.refused == Refused::Credential;
    assert!(error.tries().iter().all(refused), "{told}");
    let names = |revision: &&str| told.contains(&format!("with {revision}: "));
    assert!(["r1", "r2", "r3"].iter().all(names), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_the_credential_is_not_tried_with_another() {
    let database = with_roles(&["r1", "r2"]).await;
    database.sql("ALTER ROLE {db}_r2 CONNECTION LIMIT 0").await;
    let (_dir, plain) = plain(&database, logins(&database, &["r1", "r2"]));
    for _ in 0..3 {
        let error = plain.connect().await.unwrap_err();
        assert_eq!(error.tries().len(), 1, "{error}");
        assert_eq!(error.tries()[0].refused, Refused::Other, "{error}");
    }
    assert_eq!(database.asked("r1"), 0);
    // Nothing was held against it.
    database.sql("ALTER ROLE {db}_r2 CONNECTION LIMIT -1").await;
    assert_eq!(revision(&plain).await, "r2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_one_with_trouble_of_its_own_stays() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, plain) = plain(&database, logins(&database, &["r1"]));
    assert_eq!(revision(&plain).await, "r1");
    // The new one cannot be judged, so that the old one goes on; and it is not asked with each request.
    database.sql("ALTER ROLE {db}_r2 CONNECTION LIMIT 0").await;
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    let begun = Instant::now();
    for _ in 0..30 {
        assert_eq!(revision(&plain).await, "r1");
    }
    let asked = database.asked("r2");
    let allowed = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    assert!(asked <= allowed, "{asked} in {:?}", begun.elapsed());
    database.sql("ALTER ROLE {db}_r2 CONNECTION LIMIT -1").await;
    until_it_is(&plain, "r2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_of_the_server_is_not_asked_about_with_each_request() {
    let database = Database::without_rules(crate::server::Server::shared()).await;
    database.rule("host {db} {db}_r1 127.0.0.1/32 scram-sha-256");
    for revision in ["r1", "r2"] {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    let (_dir, plain) = plain(&database, logins(&database, &["r1", "r2"]));
    let begun = Instant::now();
    for _ in 0..30 {
        assert_eq!(revision(&plain).await, "r1");
    }
    let refused = database.server.lines(&format!(
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"{}\"",
        database.role("r2")
    ));
    assert!((1..=steps(begun)).contains(&refused.len()), "{refused:?}");
    database.rule("host {db} {db}_r2 127.0.0.1/32 scram-sha-256");
    until_it_is(&plain, "r2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_stops_working_is_replaced() {
    let database = with_roles(&["r1", "r2"]).await;
    let (_dir, plain) = plain(&database, logins(&database, &["r1", "r2"]));
    assert_eq!(revision(&plain).await, "r2");
    database.sql("ALTER ROLE {db}_r2 NOLOGIN").await;
    for _ in 0..5 {
        assert_eq!(revision(&plain).await, "r1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_of_little_patience_does_not_make_it_ask_again() {
    let database = with_roles(&[]).await;
    database.create("r1", "PASSWORD 'another'").await;
    let (_dir, plain) = plain(&database, primary(login(&database, "r1")));
    let begun = Instant::now();
    for _ in 0..20 {
        // Dropped after one look, long before the server can answer.
        let mut connecting = std::pin::pin!(plain.connect());
        let looked = std::future::poll_fn(|context| std::task::Poll::Ready(connecting.as_mut().poll(context)));
        let _ = looked.await;
    }
    assert!(eventually(|| database.refused("r1") >= 1));
    let error = plain.connect().await.unwrap_err();
    assert!(error.to_string().contains("with r1: "), "{error}");
    assert!(database.refused("r1") <= steps(begun), "{}", database.refused("r1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_content_is_no_longer_left_alone() {
    let database = with_roles(&["r1"]).await;
    let (dir, plain) = plain(&database, primary(login_with(&database, "r1", "a typing mistake")));
    let begun = Instant::now();
    plain.connect().await.unwrap_err();
    plain.connect().await.unwrap_err();
    assert!(database.refused("r1") <= steps(begun));
    dir.publish(primary(login(&database, "r1"))).unwrap();
    assert_eq!(revision(&plain).await, "r1");
}
