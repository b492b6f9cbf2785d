//! Our client and our server, each at every step of a rotation: whoever has a token in common meets.

use http::HeaderName;
use keydir::Dir;
use keydir_hyper::{AuthenticateLayer, AuthorizationLayer, Token, Tokens};
use tower::Layer;

use crate::support::{Server, files, get, ok, send, token_of};

/// The primary first.
const CLIENTS: [&[&str]; 4] = [&["r1"], &["r1", "r2"], &["r2", "r1"], &["r2"]];
const SERVERS: [&[&str]; 3] = [&["r1"], &["r1", "r2"], &["r2"]];

#[tokio::test]
async fn who_has_a_token_in_common_meets() {
    let key = HeaderName::from_static("x-api-key");
    for (client, server) in CLIENTS.iter().flat_map(|client| SERVERS.map(|server| (client, server))) {
        let token = Token::in_dir(&Dir::in_memory(files(client[0], &client[1..]))).unwrap();
        let accepted = server.iter().map(|id| (format!("{id}.token"), token_of(id)));
        let accepted = Tokens::in_dir(&Dir::in_memory(accepted)).unwrap();
        let primary_only = server.contains(&client[0]);
        let any = client.iter().any(|id| server.contains(id));
        for (layer, guard) in [
            (AuthorizationLayer::bearer(&token), AuthenticateLayer::bearer(&accepted)),
            (
                AuthorizationLayer::header(key.clone(), &token),
                AuthenticateLayer::header(key.clone(), &accepted),
            ),
        ] {
            let service = guard.layer(Server::new(|_| ok()));
            let plain = layer.clone().any_origin().layer(service.clone());
            let trying = layer.try_another().any_origin().layer(service);
            for (sender, expected) in [(plain, primary_only), (trying, any)] {
                let status = send(&sender, get("https://api.internal/")).await;
                assert_eq!(status == 200, expected, "{client:?} and {server:?}: {status}");
            }
        }
    }
}
