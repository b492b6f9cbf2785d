//! Acting as a role that owns what the logins make.

use keydir_postgres::Login;

use crate::directory::{logins, password, plain};
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
