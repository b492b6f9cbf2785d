//! What a password costs: bounded, off the executor, the same for unknown users, once for who has the right one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use keydir_hyper::{AuthenticateLayer, Busy, Passwords};

use crate::support::passwords::{QUICK, SLOW, basic, eventually, passwords};
use crate::support::{ask, behind};

/// A login that takes its time, begun and still computed when this returns; it can be seen by the place that it takes.
async fn begun(passwords: &Passwords, user: &'static str) -> tokio::task::JoinHandle<()> {
    let clone = passwords.clone();
    let attempt = tokio::spawn(async move {
        assert_eq!(clone.verify(user, b"wrong").await.map(|key| key.is_some()), Ok(false));
    });
    tokio::task::yield_now().await;
    attempt
}

#[tokio::test]
async fn hundreds_of_wrong_passwords_stall_nobody() {
    let (_dir, passwords) = passwords(&[("r1", "ali", "right", SLOW), ("r2", "bob", "right", QUICK)]);
    let passwords = passwords.with_limits(1, 3);
    let layer = AuthenticateLayer::basic(&passwords);
    let bob = basic("bob", "right");
    assert_eq!(
        ask(behind(&layer), &[("authorization", &bob)]).await.status,
        StatusCode::OK
    );

    let [begun, done] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let attempts: Vec<_> = (0..200)
        .map(|_| {
            let (service, begun, done) = (behind(&layer), Arc::clone(&begun), Arc::clone(&done));
            tokio::spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                let answer = ask(service, &[("authorization", &basic("ali", "wrong"))]).await;
                done.fetch_add(1, Ordering::SeqCst);
                answer
            })
        })
        .collect();
    // There is one thread. If it computed the hashes, all of them would be done after their turn.
    while begun.load(Ordering::SeqCst) < 200 {
        tokio::task::yield_now().await;
    }
    assert!(
        done.load(Ordering::SeqCst) < 200,
        "the hashes were computed on the executor"
    );
    // Whose password is known to be right waits for nobody, however many do.
    assert_eq!(
        ask(behind(&layer), &[("authorization", &bob)]).await.status,
        StatusCode::OK
    );
    assert!(done.load(Ordering::SeqCst) < 200);

    let (mut refused, mut busy) = (0, 0);
    for attempt in attempts {
        let answer = attempt.await.unwrap();
        match answer.status {
            StatusCode::UNAUTHORIZED => refused += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                busy += 1;
                assert_eq!((answer.retry_after.as_deref(), answer.challenges.len()), (Some("1"), 0));
            }
            status => panic!("{status}"),
        }
    }
    assert!(refused >= 4 && busy > 0 && refused + busy == 200, "{refused} {busy}");
    // All places are free again.
    let ali = basic("ali", "right");
    assert_eq!(
        ask(behind(&layer), &[("authorization", &ali)]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_password_that_was_right_is_not_computed_again_and_a_wrong_one_is() {
    let (_dir, passwords) = passwords(&[("r1", "ali", "right", SLOW)]);
    let passwords = passwords.with_limits(1, 0);
    assert!(passwords.verify("ali", b"right").await.unwrap().is_some());
    eventually("one attempt in the way of others", async || {
        let attempt = begun(&passwords, "ali").await;
        let right = passwords.verify("ali", b"right").await.map(|key| key.is_some());
        assert_eq!(right, Ok(true), "it waits, though it was right before");
        let wrong = passwords.verify("ali", b"wrong").await.err();
        attempt.await.unwrap();
        wrong == Some(Busy)
    })
    .await;
}

#[tokio::test]
async fn an_unknown_user_costs_as_much() {
    let (_dir, passwords) = passwords(&[("r1", "ali", "right", SLOW)]);
    let passwords = passwords.with_limits(1, 0);
    eventually("an unknown user in the way of others", async || {
        let attempt = begun(&passwords, "nobody").await;
        let other = passwords.verify("ali", b"wrong").await.err();
        attempt.await.unwrap();
        other == Some(Busy)
    })
    .await;
    // And is never let in, also not by the password of somebody else, nor by one that is known to be right.
    for _ in 0..2 {
        assert!(passwords.verify("ali", b"right").await.unwrap().is_some());
        assert!(passwords.verify("nobody", b"right").await.unwrap().is_none());
    }
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_and_one_that_is_computed_counts_to_its_end() {
    let (_dir, passwords) = passwords(&[("r1", "ali", "right", SLOW)]);
    let passwords = passwords.with_limits(1, 1);
    eventually("a queue that was full and is empty", async || {
        let running = begun(&passwords, "ali").await;
        let waiting = begun(&passwords, "ali").await;
        let full = passwords.verify("ali", b"wrong").await.err() == Some(Busy);
        running.abort();
        waiting.abort();
        let _ = (running.await, waiting.await);
        // One place is free at once; the other only when the hash is there.
        let next = begun(&passwords, "ali").await;
        let still_full = passwords.verify("ali", b"wrong").await.err() == Some(Busy);
        next.await.unwrap();
        full && still_full
    })
    .await;
}
