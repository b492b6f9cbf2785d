//! What lies in between and drops start-up options, as poolers do.

use keydir_postgres::{SqlxError, SqlxLogin, SslMode};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::{SHORT, fill, sessions, until, user, with_roles};
use crate::directory::{credentials, logins};

/// Passes everything on to this port but the options of a start-up message. Its own port.
async fn dropping_options(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut message = vec![0; client.read_u32().await.unwrap() as usize - 4];
                client.read_exact(&mut message).await.unwrap();
                let (version, settings) = message.split_at(4);
                let texts: Vec<_> = settings.split(|byte| *byte == 0).collect();
                let mut passed = version.to_vec();
                for pair in texts.chunks_exact(2).filter(|pair| !pair[0].is_empty()) {
                    if pair[0] != b"options" {
                        passed.extend([pair[0], b"\0", pair[1], b"\0"].concat());
                    }
                }
                passed.push(0);
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                server.write_u32(passed.len() as u32 + 4).await.unwrap();
                server.write_all(&passed).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_tells_the_logins_apart() {
    let database = with_roles(&["r1", "r2"]).await;
    let (dir, credentials) = credentials(logins(&database, &["r1"]));
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(dropping_options(database.server.port).await)
        .database(&database.name);
    let login = SqlxLogin::new(options, &credentials, SslMode::Disable).unwrap();
    let pool_options = PgPoolOptions::new().max_connections(4);
    let with_role = login.clone().role(database.role("r2"));
    let error = with_role.connect(pool_options.clone()).await.unwrap_err();
    assert!(matches!(error, SqlxError::Login(_)), "{error:?}");

    let (pool, _rotation) = login.with_window(SHORT).connect(pool_options).await.unwrap();
    fill(&pool).await;
    let tag: Option<String> = sqlx::query_scalar("SELECT current_setting('keydir.login', true)")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(tag, None);
    dir.publish(logins(&database, &["r1", "r2"])).unwrap();
    until(async || sessions(&database, "r1").await == 0).await;
    assert_eq!(user(&pool).await, database.role("r2"));
    fill(&pool).await;
    dir.publish(logins(&database, &["r1"])).unwrap();
    until(async || sessions(&database, "r2").await == 0).await;
    assert_eq!(user(&pool).await, database.role("r1"));
}
