//! Acting as a role that owns what the logins make.

use keydir_postgres::{Login, Refused, SslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::directory::{credentials, logins, password, plain};
use crate::server::Database;

const ODD: &str = "my \"app\"\\ ünd -c statement_timeout=7s";

async fn makes_a_table(login: &Login, table: &str) -> String {
    let (client, _) = login.connect().await.unwrap();
    client.batch_execute(&format!("CREATE TABLE {table} ()")).await.unwrap();
    let sql = format!("SELECT tableowner::text FROM pg_tables WHERE tablename = '{table}'");
    let owner: String = client.query_one(&sql, &[]).await.unwrap().get(0);
    let user: String = client.query_one("SELECT session_user::text", &[]).await.unwrap().get(0);
    assert!(user.ends_with("_r1"), "{user}");
    let timeout: String = client.query_one("SHOW statement_timeout", &[]).await.unwrap().get(0);
    assert_eq!(timeout, "0");
    owner
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_belongs_to_the_role() {
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    let odd = format!("{} {ODD}", database.name);
    for (number, role) in [database.role("app"), odd].iter().enumerate() {
        let quoted = role.replace('"', "\"\"");
        database
            .sql(&format!(
                "CREATE ROLE \"{quoted}\"; GRANT \"{quoted}\" TO {{db}}_r1; GRANT ALL ON SCHEMA public TO \"{quoted}\""
            ))
            .await;
        let (_dir, login) = plain(&database, logins(&database, &["r1"]));
        assert_eq!(
            makes_a_table(&login.clone().role(role), &format!("o{number}")).await,
            *role
        );
        assert_eq!(makes_a_table(&login.set_role(role), &format!("s{number}")).await, *role);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_is_replaced_by_one_who_is() {
    let database = Database::new().await;
    database.sql("CREATE ROLE {db}_app").await;
    for revision in ["r1", "r2"] {
        database
            .create(revision, &format!("PASSWORD '{}'", password(revision)))
            .await;
    }
    database.sql("GRANT {db}_app TO {db}_r1").await;
    for option in [true, false] {
        let (_dir, login) = plain(&database, logins(&database, &["r1", "r2"]));
        // Without the role r2 would do; that says nothing of it with the role.
        let (_client, lease) = login.connect().await.unwrap();
        assert_eq!(lease.revision().as_str(), "r2");
        let role = database.role("app");
        let login = if option { login.role(role) } else { login.set_role(role) };
        let (client, lease) = login.connect().await.unwrap();
        let user: String = client.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
        assert_eq!((lease.revision().as_str(), user), ("r1", database.role("app")));
    }
}

/// Passes everything on but the start-up options, as some poolers do.
async fn pooler(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let length = client.read_u32().await.unwrap() as usize;
                let mut start = vec![0; length - 4];
                client.read_exact(&mut start).await.unwrap();
                let (version, parameters) = start.split_at(4);
                let words: Vec<&[u8]> = parameters.split(|byte| *byte == 0).collect();
                let kept = words.chunks(2).filter(|pair| pair[0] != b"options").flatten();
                let kept = kept.flat_map(|word| [*word, b"\0"].concat());
                let kept: Vec<u8> = kept.collect();
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let all = u32::try_from(8 + kept.len() - 1).unwrap();
                let message = [&all.to_be_bytes()[..], version, &kept[..kept.len() - 1]].concat();
                server.write_all(&message).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_swallows_the_option_is_noticed() {
    let database = Database::new().await;
    database.create("r1", &format!("PASSWORD '{}'", password("r1"))).await;
    database.sql("CREATE ROLE {db}_app; GRANT {db}_app TO {db}_r1").await;
    let port = pooler(database.server.port).await;
    let config = format!("hostaddr=127.0.0.1 port={port} dbname={}", database.name);
    let (_dir, credentials) = credentials(logins(&database, &["r1"]));
    let login = Login::new(config.parse().unwrap(), &credentials, SslMode::Disable).unwrap();
    let error = login.clone().role(database.role("app")).connect().await.unwrap_err();
    assert_eq!(error.tries()[0].refused, Refused::Privilege, "{error}");
    assert!(error.to_string().contains("does not let it act as the role"), "{error}");
    login.set_role(database.role("app")).connect().await.unwrap();
}
