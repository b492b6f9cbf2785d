//! Logins by certificate, whose certificates rotate, and whose CA does.

use keydir::Dir;
use keydir_postgres::{Credentials, Lease, Login, SslMode};
use tokio_postgres::Client;

use crate::directory::{Files, anchors, certificate, password};
use crate::pki::{Ca, Leaf};
use crate::server::{Database, Server};
use crate::tls::is_cancelled;

/// A revision whose role is always the same, so that the server needs no change.
fn revision(database: &Database, id: &str, leaf: &Leaf) -> Files {
    [
        certificate(id, leaf),
        vec![(format!("{id}.username"), database.role("app"))],
    ]
    .concat()
}

/// The serial number of the session's certificate, as the server sees it.
async fn serial(client: &Client) -> String {
    let sql = "SELECT client_serial::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn connected(login: &Login) -> (Client, Lease, String) {
    let (client, lease) = login.connect().await.unwrap();
    let serial = serial(&client).await;
    (client, lease, serial)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_ca_rotate() {
    let server: &'static Server = Box::leak(Box::new(Server::start("ssl = on")));
    let database = Database::without_rules(server).await;
    database.rule("hostssl {db} all 127.0.0.1/32 cert");
    database.create("app", "").await;
    let role = database.role("app");
    let new_ca = Ca::new("new client ca");
    let (one, two) = (server.clients.leaf(&role), new_ca.leaf(&role));
    let (first, second) = (revision(&database, "r1", &one), revision(&database, "r2", &two));
    let marked = |files: &Files| crate::directory::primary(files.clone());

    let dir = Dir::in_memory(marked(&first));
    let credentials = Credentials::certificates_in_dir(&dir).unwrap();
    let mode = SslMode::VerifyFull(anchors(&server.ca));
    let login = Login::new(database.config(), &credentials, mode).unwrap();
    let (client, lease, old_serial) = connected(&login).await;

    // Promoted before the server knows its CA: refused once, beside the requests.
    dir.publish([first.clone(), marked(&second)].concat()).unwrap();
    let (_, still, serial) = connected(&login).await;
    assert_eq!((still.revision().as_str(), &serial), ("r1", &old_serial));

    server.take_clients_of(&format!("{}{}", server.clients.pem(), new_ca.pem()));
    server.reload();
    let (new_client, new_lease, new_serial) = loop {
        let (client, lease, serial) = connected(&login).await;
        if lease.revision().as_str() == "r2" {
            break (client, lease, serial);
        }
    };
    assert_ne!(old_serial, new_serial);
    assert!(lease.is_superseded() && lease.stands());
    is_cancelled(&database, &client, &lease).await;

    // Retired here, then there.
    dir.publish(marked(&second)).unwrap();
    lease.ended().await;
    server.take_clients_of(&new_ca.pem());
    server.reload();
    assert!(new_lease.stands());
    is_cancelled(&database, &new_client, &new_lease).await;
    // The server would take the old certificate no more, and a session with it can still be stopped.
    is_cancelled(&database, &client, &lease).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_flat_layout() {
    let database = Database::without_rules(Server::shared()).await;
    database.rule("hostssl {db} all 127.0.0.1/32 scram-sha-256 clientcert=verify-full");
    database.create("app", &format!("PASSWORD '{}'", password("app"))).await;
    let role = database.role("app");
    let leaf = database.server.clients.leaf(&role);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    write("username", &format!("{role}\n"));
    write("password", &format!("{}\r\n", password("app")));
    write("crt", &leaf.crt);
    write("key", &leaf.key);
    let dir = Dir::builder(folder.path()).flat().open().unwrap();
    let credentials = Credentials::in_dir(&dir).unwrap();
    let mode = SslMode::VerifyFull(anchors(&database.server.ca));
    let login = Login::new(database.config(), &credentials, mode).unwrap();
    let (_, lease, _) = connected(&login).await;
    assert_eq!(lease.revision().as_str(), "flat");
}
