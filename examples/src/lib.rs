//! What the example programs share: a server, a client, the demo that rotates a whole CA between them, pools.
//!
//! The programs are thin: they read their arguments, open key directories, and call what is here.

mod authority;
mod client;
pub mod demo;
mod failure;
pub mod pool;
mod run;
mod server;
mod target;

pub use client::{Client, Connection, Handshake, RequestError};
pub use failure::{Failure, causes};
pub use run::{Log, asked_to_end, print_line, run};
pub use server::{Clients, Server};
pub use target::{Target, TargetError};
