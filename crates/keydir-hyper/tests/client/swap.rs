//! Other clients than ours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use keydir::Dir;
use keydir_hyper::Swap;
use keydir_rustls::{Connector, TrustAnchors, client_config};
use tower::ServiceExt;

use crate::support::*;

fn connector() -> (Dir, Connector) {
    let dir = trust(2);
    let anchors = TrustAnchors::in_dir(&dir).unwrap();
    (dir, client_config(&anchors).connector().unwrap())
}

fn trust(cas: usize) -> Dir {
    Dir::in_memory(of(cas))
}

fn of(count: usize) -> Vec<(String, String)> {
    thread_local!(static CAS: [Ca; 2] = [Ca::new("one"), Ca::new("two")]);
    CAS.with(|[one, two]| cas(&[("c1", one), ("c2", two)][..count]))
}

/// Counts what it has made, unless it is told to fail.
fn counting(connector: &Connector) -> (Swap<usize, io::Error>, Arc<AtomicBool>) {
    let (fails, made) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let told = Arc::clone(&fails);
    let swap = Swap::new(connector, move |generation| {
        assert!(generation.stands());
        match told.load(Ordering::SeqCst) {
            true => Err(io::Error::other("not today")),
            false => Ok(made.fetch_add(1, Ordering::SeqCst)),
        }
    });
    (swap.unwrap(), fails)
}

#[tokio::test]
async fn another_is_made_once_for_each_revocation() {
    let (dir, connector) = connector();
    let (swap, _) = counting(&connector);
    for n in 0..5 {
        for _ in 0..3 {
            assert_eq!(swap.current().unwrap(), n);
        }
        dir.publish(of(1)).unwrap();
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let swap = swap.clone();
                std::thread::spawn(move || swap.current().unwrap())
            })
            .collect();
        for asked in asked {
            assert_eq!(asked.join().unwrap(), n + 1, "no doubles");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        // What comes in changes nothing.
        dir.publish(of(2)).unwrap();
    }
}

#[tokio::test]
async fn none_is_given_out_for_longer_than_its_age() {
    let (_dir, connector) = connector();
    let made = AtomicUsize::new(0);
    let swap = Swap::builder(&connector).max_age(Duration::ZERO);
    let swap = swap.build(move |_| Ok::<_, io::Error>(made.fetch_add(1, Ordering::SeqCst)));
    let swap = swap.unwrap();
    until("nothing was revoked", || swap.current().unwrap() >= 2).await;
}

#[tokio::test]
async fn nobody_need_ask() {
    let (dir, connector) = connector();
    let made = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&made);
    let swap = Swap::new(&connector, move |_| {
        noted.fetch_add(1, Ordering::SeqCst);
        Ok::<_, io::Error>(())
    });
    dir.publish(of(1)).unwrap();
    until("another is made", || made.load(Ordering::SeqCst) == 2).await;
    drop(swap);
    let metrics = tokio::runtime::Handle::current().metrics();
    until("its task ends with it", || metrics.num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn what_cannot_be_made_is_tried_again() {
    let (dir, connector) = connector();
    let (swap, fails) = counting(&connector);
    fails.store(true, Ordering::SeqCst);
    assert_eq!(swap.current().unwrap(), 0, "as long as it stands");
    dir.publish(of(1)).unwrap();
    for _ in 0..3 {
        assert_eq!(
            swap.current().unwrap_err().to_string(),
            "not today",
            "the old one is not given out"
        );
    }
    fails.store(false, Ordering::SeqCst);
    assert_eq!(swap.current().unwrap(), 1);
    assert_eq!(swap.current().unwrap(), 1);

    fails.store(true, Ordering::SeqCst);
    let first = Swap::new(&connector, |_| Err::<(), _>(io::Error::other("from the beginning")));
    assert_eq!(first.unwrap_err().to_string(), "from the beginning");
}

#[tokio::test]
async fn it_is_a_service_if_what_is_made_is_one() {
    let (dir, connector) = connector();
    let fails = Arc::new(AtomicBool::new(false));
    let (told, made) = (Arc::clone(&fails), AtomicUsize::new(0));
    let swap = Swap::new(&connector, move |_| {
        if told.load(Ordering::SeqCst) {
            return Err(io::Error::other("not today"));
        }
        let n = made.fetch_add(1, Ordering::SeqCst);
        Ok(tower::service_fn(move |request: usize| async move {
            match request {
                0 => Err(io::Error::other("that is nothing")),
                request => Ok((n, request)),
            }
        }))
    })
    .unwrap();
    assert_eq!(swap.clone().oneshot(7).await.unwrap(), (0, 7));
    assert_eq!(
        swap.clone().oneshot(0).await.unwrap_err().to_string(),
        "that is nothing"
    );
    dir.publish(of(1)).unwrap();
    assert_eq!(swap.clone().oneshot(7).await.unwrap(), (1, 7));
    dir.publish(of(2)).unwrap();
    fails.store(true, Ordering::SeqCst);
    dir.publish(of(1)).unwrap();
    assert_eq!(swap.clone().oneshot(7).await.unwrap_err().to_string(), "not today");
}
