//! Connections while the primary is refused: each is to cost one login with what works.

use super::connect::{ROUNDS, side_by_side};
use super::one_thread;
use super::place::{Mode, Place};
use crate::Work;
use crate::table::Table;

/// Logins for one connection. The refused one is tried again after 1, 2, 4 .. seconds.
const GOAL: f64 = 1.01;

pub(super) fn bench(work: Work, table: &mut Table) {
    one_thread().block_on(async {
        let place = Place::new(Mode::Plain).await;
        // There is no such role.
        let (_dir, refused) = place.apart(&["r1", "r2"]);
        let logins = || {
            ["r1", "r2"]
                .map(|revision| place.database.asked(revision))
                .iter()
                .sum::<usize>()
        };
        let (_, lease) = refused.connect().await.unwrap();
        assert_eq!(*lease.revision(), *"r1");

        let before = logins();
        let times = side_by_side(
            work.of(ROUNDS),
            async || refused.connect().await.unwrap(),
            async || place.login.connect().await.unwrap(),
        )
        .await;
        let connections = times.connections();
        let all = logins() - before - connections;
        times.row(table, "a new connection while the primary is refused, beside one login");
        let each = all as f64 / connections as f64;
        table.count(
            "logins at the server for such a connection",
            each,
            Some(1.0),
            Some(GOAL),
        );
        let tried = place.database.refused("r2");
        table.count("of these refused, in all", tried as f64, None, None);
    });
}
