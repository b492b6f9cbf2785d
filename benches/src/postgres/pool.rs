//! Pools of both kinds, with our managers.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use keydir_postgres::{Bb8Manager, DeadpoolManager, Login, Sweeper};
use tokio_postgres::Client;

pub(super) const SIZE: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Deadpool,
    Bb8,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Deadpool, Kind::Bb8];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deadpool => "deadpool",
            Self::Bb8 => "bb8",
        }
    }

    pub(super) fn named(name: &str) -> Self {
        KINDS.into_iter().find(|kind| kind.name() == name).unwrap()
    }
}

#[derive(Clone)]
pub(super) enum Pool {
    Deadpool(deadpool::managed::Pool<DeadpoolManager>),
    Bb8(
        bb8::Pool<Bb8Manager>,
        #[allow(dead_code, reason = "it sweeps")] Arc<Sweeper>,
    ),
}

impl Pool {
    /// Looked after. Sessions that are to go do so within the window; without any it is what keydir takes.
    pub(super) async fn new(kind: Kind, login: &Login, window: Option<Duration>) -> Self {
        match kind {
            Kind::Deadpool => {
                let manager = DeadpoolManager::new(login);
                let manager = match window {
                    Some(window) => manager.with_window(window),
                    None => manager,
                };
                let pool = deadpool::managed::Pool::builder(manager);
                let pool = pool.max_size(SIZE).build().unwrap();
                DeadpoolManager::sweep(&pool);
                Self::Deadpool(pool)
            }
            Kind::Bb8 => {
                let manager = Bb8Manager::new(login);
                let manager = match window {
                    Some(window) => manager.with_window(window),
                    None => manager,
                };
                let pool = bb8::Pool::builder().max_size(SIZE as u32);
                let pool = pool.build(manager.clone()).await.unwrap();
                let sweeper = manager.sweep(&pool);
                Self::Bb8(pool, Arc::new(sweeper))
            }
        }
    }

    pub(super) async fn get(&self) -> Result<Taken, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match self {
            Self::Deadpool(pool) => Taken::Deadpool(pool.get().await?),
            Self::Bb8(pool, _) => Taken::Bb8(pool.get_owned().await?),
        })
    }

    /// With as many idle sessions as it may have.
    pub(super) async fn fill(&self) {
        let mut taken = Vec::new();
        for _ in 0..SIZE {
            taken.push(self.get().await.unwrap());
        }
    }
}

pub(super) enum Taken {
    Deadpool(deadpool::managed::Object<DeadpoolManager>),
    Bb8(bb8::PooledConnection<'static, Bb8Manager>),
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
