//! Whether a login may be taken away.

use keydir_postgres::NotSafe;

use crate::directory::{logins, password, plain};
use crate::server::{Database, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_may_go_when_nobody_uses_it() {
    let database = Database::new().await;
    for revision in ["r1", "r2"] {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    let (dir, login) = plain(&database, logins(&database, &["r1"]));
    let (elsewhere, theirs) = plain(&database, logins(&database, &["r1"]));
    let (old, _) = login.connect().await.unwrap();
    let (other, _) = theirs.connect().await.unwrap();
    let reason = login.safe_to_retire("r1", &old).await.unwrap_err();
    assert!(matches!(reason, NotSafe::Primary), "{reason}");

    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    let reason = login.safe_to_retire("r1", &old).await.unwrap_err();
    assert!(matches!(reason, NotSafe::PrimaryUntried), "{reason}");
    let client = loop {
        let (client, lease) = login.connect().await.unwrap();
        if *lease.revision() == *"r2" {
            break client;
        }
    };
    let reason = login.safe_to_retire("r1", &client).await.unwrap_err();
    assert!(matches!(reason, NotSafe::UsedHere(_)), "{reason}");
    drop(old);
    assert!(eventually(|| dir.report().sets[0].uses("r1") == 0));

    // What another process has, only the server knows.
    let reason = login.safe_to_retire("r1", &client).await.unwrap_err();
    assert!(matches!(reason, NotSafe::Sessions(1..)), "{reason}");
    // The number, not the name: a role that is dropped leaves its sessions behind.
    database.sql(&format!("DROP ROLE {}", database.role("r1"))).await;
    let reason = login.safe_to_retire("r1", &client).await.unwrap_err();
    assert!(matches!(reason, NotSafe::Nameless(1..)), "{reason}");
    drop(other);
    drop(elsewhere);
    while let Err(reason) = login.safe_to_retire("r1", &client).await {
        // Other tests drop roles too.
        assert!(matches!(reason, NotSafe::Nameless(_)), "{reason}");
    }

    let reason = login.safe_to_retire("r3", &client).await.unwrap_err();
    assert!(matches!(reason, NotSafe::NoRevision), "{reason}");
    dir.publish([
        ("r2.username", database.role("r2")),
        ("r2.password", "another".into()),
        ("r4.username", database.role("r2")),
        ("r4.password.primary", password("r2")),
    ])
    .unwrap();
    let (client, _) = login.connect().await.unwrap();
    let reason = login.safe_to_retire("r2", &client).await.unwrap_err();
    assert!(
        matches!(&reason, NotSafe::SameUser(other) if *other == *"r4"),
        "{reason}"
    );
}
