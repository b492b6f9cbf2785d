//! Pools whose sessions follow the login, of both kinds.

mod busy;
mod faults;
mod hosts;
mod load;
mod sessions;

use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bb8::PooledConnection;
use deadpool::managed::Object;
use keydir_postgres::{Bb8Manager, DeadpoolManager, Lease, Login, Sweeper};
use tokio_postgres::Client;

use crate::directory::password;
use crate::server::{Database, PATIENCE};

const SIZE: usize = 4;
/// Sessions of a superseded login go within this.
const WINDOW: Duration = Duration::from_millis(300);

#[derive(Clone)]
enum Pool {
    Deadpool(deadpool::managed::Pool<DeadpoolManager>),
    Bb8 {
        pool: bb8::Pool<Bb8Manager>,
        _sweeper: Arc<Sweeper>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Deadpool,
    Bb8,
}

const KINDS: [Kind; 2] = [Kind::Deadpool, Kind::Bb8];

impl Pool {
    async fn new(kind: Kind, login: &Login, window: Duration) -> Self {
        match kind {
            Kind::Deadpool => {
                let manager = DeadpoolManager::new(login).with_window(window);
                let pool = deadpool::managed::Pool::builder(manager)
                    .max_size(SIZE)
                    .build()
                    .unwrap();
                DeadpoolManager::sweep(&pool);
                Self::Deadpool(pool)
            }
            Kind::Bb8 => {
                let manager = Bb8Manager::new(login).with_window(window);
                let pool = bb8::Pool::builder().max_size(SIZE as u32);
                let pool = pool.build(manager.clone()).await.unwrap();
                let sweeper = manager.sweep(&pool);
                Self::Bb8 {
                    pool,
                    _sweeper: Arc::new(sweeper),
                }
            }
        }
    }

    async fn get(&self) -> Result<Taken, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match self {
            Self::Deadpool(pool) => Taken::Deadpool(pool.get().await?),
            Self::Bb8 { pool, .. } => Taken::Bb8(pool.get_owned().await?),
        })
    }

    /// With as many idle sessions as it may have.
    async fn fill(&self) -> BTreeSet<String> {
        let mut taken = Vec::new();
        for _ in 0..SIZE {
            taken.push(self.get().await.unwrap());
        }
        taken.iter().map(|taken| taken.lease().revision().to_string()).collect()
    }
}

enum Taken {
    Deadpool(Object<DeadpoolManager>),
    Bb8(PooledConnection<'static, Bb8Manager>),
}

impl Taken {
    fn lease(&self) -> &Lease {
        match self {
            Self::Deadpool(taken) => taken.lease(),
            Self::Bb8(taken) => taken.lease(),
        }
    }
}

impl Deref for Taken {
    type Target = Client;

    fn deref(&self) -> &Client {
        match self {
            Self::Deadpool(taken) => taken,
            Self::Bb8(taken) => taken,
        }
    }
}

impl DerefMut for Taken {
    fn deref_mut(&mut self) -> &mut Client {
        match self {
            Self::Deadpool(taken) => taken,
            Self::Bb8(taken) => taken,
        }
    }
}

impl Database {
    async fn with(&self, revisions: &[&str]) {
        for revision in revisions {
            self.create(revision, &format!("PASSWORD '{}'", password(revision)))
                .await;
        }
    }

    /// How many sessions the role of a revision has.
    async fn sessions(&self, revision: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}'",
            self.role(revision)
        );
        self.sql(&sql).await[0][0].parse().unwrap()
    }

    async fn until_sessions(&self, revision: &str, expected: usize) {
        let all = async {
            while self.sessions(revision).await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, all).await;
        assert!(came.is_ok(), "{revision}: {} sessions", self.sessions(revision).await);
    }
}
