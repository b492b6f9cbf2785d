//! Sessions that take long to be made, while what they are made with changes.

use keydir_postgres::{SqlxLogin, SslMode};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{LONG, sessions, until, until_it_is, with_roles};
use crate::directory::{credentials, logins};
use crate::proxy::Proxy;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_session_is_what_it_was_made_with() {
    let database = with_roles(&["r1", "r2", "r3"]).await;
    let proxy = Proxy::before(database.server.port).await;
    let (dir, credentials) = credentials(logins(&database, &["r1"]));
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(proxy.address.port())
        .database(&database.name);
    let login = SqlxLogin::new(options, &credentials, SslMode::Disable).unwrap();
    // The login that tries r1, and the first session.
    proxy.let_through(2);
    let pool_options = PgPoolOptions::new().max_connections(8);
    let (pool, rotation) = login.with_window(LONG).connect(pool_options).await.unwrap();
    let _first = pool.acquire().await.unwrap();
    let arrived = async |connections| until(async || proxy.arrived() == connections).await;
    let who = async |connection: &mut sqlx::PgConnection| -> String {
        let user = sqlx::query_scalar("SELECT session_user::text");
        user.fetch_one(connection).await.unwrap()
    };

    // A session in whose place r2 is tried. Held back: the login that does, then a session with r1.
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    arrived(3).await;
    proxy.let_through(1);
    arrived(4).await;
    let acquiring = tokio::spawn(pool.acquire());
    arrived(5).await;
    proxy.let_through(1);
    until_it_is(&rotation, "r2").await;
    proxy.let_through(1);
    let mut slow = acquiring.await.unwrap().unwrap();
    assert_eq!(who(&mut slow).await, database.role("r1"));
    proxy.let_through(1);
    let mut next = pool.acquire().await.unwrap();
    assert_eq!(who(&mut next).await, database.role("r2"));

    // Likewise with r3, but r2 is revoked before the session comes: it is made again.
    dir.publish(logins(&database, &["r1", "r2", "r3"])).unwrap();
    arrived(7).await;
    proxy.let_through(1);
    arrived(8).await;
    let acquiring = tokio::spawn(pool.acquire());
    arrived(9).await;
    proxy.let_through(1);
    until_it_is(&rotation, "r3").await;
    let r2 = credentials.live().load().get("r2").cloned().unwrap();
    dir.publish(logins(&database, &["r1", "r3"])).unwrap();
    r2.ended().await;
    proxy.let_through(2);
    let mut slower = acquiring.await.unwrap().unwrap();
    assert_eq!(who(&mut slower).await, database.role("r3"));
    until(async || sessions(&database, "r2").await == 1).await;

    proxy.let_through(1);
    let census = rotation.sessions().await.unwrap();
    let census: Vec<_> = census.iter().map(|(id, sessions)| (id.as_str(), *sessions)).collect();
    assert_eq!(census, [("r1", 2), ("r2", 1), ("r3", 2)]);
}
