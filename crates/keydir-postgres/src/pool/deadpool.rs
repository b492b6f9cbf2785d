//! deadpool.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult, WeakPool};
use deadpool_postgres::{ClientWrapper, Connect};
use tokio::io::{AsyncWrite, empty, join};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};

use super::leased::Leased;
use super::sweeper::{self, run};
use super::turnover::Turnover;
use crate::error::LoginError;
use crate::login::Login;

/// A manager for deadpool's pool. Its objects are deadpool-postgres's clients, with their cache of statements, and a
/// [`Lease`](crate::Lease).
///
/// An idle session goes as soon as its login is revoked, and within a window when there is a new primary that the server
/// takes; one in use goes when it is given back. The new primary is tried in the place of one session, so the pool never
/// has more than its size.
///
/// ```no_run
/// # async fn query(login: keydir_postgres::Login) -> Result<(), Box<dyn std::error::Error>> {
/// use deadpool::managed::Pool;
/// use keydir_postgres::DeadpoolManager;
///
/// let pool = Pool::builder(DeadpoolManager::new(&login)).max_size(16).build()?;
/// DeadpoolManager::sweep(&pool);
///
/// let client = pool.get().await?;
/// client.query("SELECT 1", &[]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DeadpoolManager(Arc<Turnover>);

impl DeadpoolManager {
    /// A manager that logs in with this.
    pub fn new(login: &Login) -> Self {
        Self(Arc::new(Turnover::new(login)))
    }

    /// The time within which the sessions of a login go that is no longer the primary, spread over it at random; 10 s
    /// without this.
    pub fn with_window(self, window: Duration) -> Self {
        Self(Arc::new(self.0.with_window(window)))
    }

    /// Looks after the pool for as long as it is there, in a task of its own. Without this, idle sessions go only when
    /// somebody would be given them, and a new primary is tried beside the pool.
    ///
    /// Must be called from within a tokio runtime with time and I/O enabled.
    pub fn sweep(pool: &Pool<Self>) {
        tokio::spawn(run(Arc::downgrade(&pool.manager().0), Arc::new(Swept(pool.weak()))));
    }
}

impl Manager for DeadpoolManager {
    type Type = Leased<ClientWrapper>;
    type Error = LoginError;

    async fn create(&self) -> Result<Self::Type, LoginError> {
        self.0.connect(wrap).await
    }

    async fn recycle(&self, leased: &mut Self::Type, _: &Metrics) -> RecycleResult<LoginError> {
        if leased.is_closed() {
            return Err(RecycleError::message("the session is closed"));
        }
        if self.0.is_due(leased.session()) {
            return Err(RecycleError::message("another login takes its place"));
        }
        Ok(())
    }
}

fn wrap(client: Client) -> ClientWrapper {
    ClientWrapper::new(client, tokio::spawn(nothing()))
}

/// deadpool-postgres aborts the task that it is given when a client is dropped. The connection's own would not get to
/// say good-bye.
async fn nothing() {}

struct Swept(WeakPool<DeadpoolManager>);

impl sweeper::Pool for Swept {
    type Client = ClientWrapper;
    type Place = Object<DeadpoolManager>;

    fn wrap(client: Client) -> ClientWrapper {
        wrap(client)
    }

    fn sweep(&self, turnover: &Turnover) {
        if let Some(pool) = self.0.upgrade() {
            // Dropped outside of the pool's lock.
            drop(pool.retain(|leased, _| !turnover.is_due(leased.session())));
        }
    }

    async fn take(&self) -> Option<Self::Place> {
        self.0.upgrade()?.get().await.ok()
    }
}

/// For the pool of deadpool-postgres as it is: new sessions are made with what is current, and that is all. What is
/// pooled stays, whatever is revoked; a [`DeadpoolManager`] does more.
///
/// ```no_run
/// # fn pool(login: keydir_postgres::Login) -> Result<(), Box<dyn std::error::Error>> {
/// use deadpool_postgres::{Manager, ManagerConfig, Pool};
///
/// let manager = Manager::from_connect(Default::default(), login, ManagerConfig::default());
/// let pool = Pool::builder(manager).max_size(16).build()?;
/// # Ok(())
/// # }
/// ```
impl Connect for Login {
    /// The config is not used: the login has its own. An error is one of input and output, which the [`LoginError`] is the
    /// cause of.
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async move {
            match Self::connect(self).await {
                Ok((client, _)) => Ok((client, tokio::spawn(nothing()))),
                Err(error) => Err(as_postgres(error).await),
            }
        })
    }
}

/// Nobody else can make an error of tokio-postgres, so it makes one of a connection whose stream fails with ours.
async fn as_postgres(error: LoginError) -> tokio_postgres::Error {
    let mut config = Config::new();
    config.user("nobody").ssl_mode(SslMode::Disable);
    loop {
        let fails = join(empty(), Fails(error.clone()));
        if let Err(error) = config.connect_raw(fails, NoTls).await {
            return error;
        }
    }
}

struct Fails(LoginError);

impl AsyncWrite for Fails {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other(self.0.clone())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
