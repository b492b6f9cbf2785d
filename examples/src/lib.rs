//! What the example programs share: a server, a client, and the demo that rotates a whole CA between them.
//!
//! The programs are thin: they read their arguments, open key directories, and call what is here.

mod authority;
mod client;
pub mod demo;
mod failure;
mod run;
mod server;
mod target;

pub use client::{Client, Connection, Handshake, RequestError};
pub use failure::{Failure, causes};
pub use run::{Log, asked_to_end, print_line, run};
pub use server::{Clients, Server};
pub use target::{Target, TargetError};
