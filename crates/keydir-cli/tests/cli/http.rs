//! `keydir check` on what goes by HTTP: tokens, logins, hashes.

use crate::check::{check, finds};
use crate::support::{Tree, secret};

#[test]
fn what_http_would_not_carry_is_told() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$4B4RlHx0aXnFJDxLGN0Zsw";
    let costly = hash.replace("m=19456", "m=999999");
    let canary = secret("http");
    let [scheme, control, blank, long] = [
        format!("Bearer {canary}"),
        format!("{canary}\u{1b}"),
        format!("{canary} "),
        canary.repeat(1000),
    ];
    for (usage, file, content, expected) in [
        ("token", "r1.token.primary", canary.as_str(), vec![]),
        (
            "token",
            "r1.token.primary",
            &scheme,
            vec!["warning not-by-http token r1"],
        ),
        (
            "token",
            "r1.token.primary",
            &control,
            vec!["error nothing-to-present token token", "error unusable token r1"],
        ),
        ("token-check", "r1.token", &scheme, vec![]),
        (
            "token-check",
            "r1.token",
            &blank,
            vec![
                "error nothing-to-accept token-check token-check",
                "error unusable token-check r1",
            ],
        ),
        (
            "token-check",
            "r1.token",
            &long,
            vec![
                "error nothing-to-accept token-check token-check",
                "error unusable token-check r1",
            ],
        ),
        ("password-login", "r1.password.primary", &scheme, vec![]),
        (
            "password-login",
            "r1.password.primary",
            &control,
            vec!["warning not-by-http password-login r1"],
        ),
        ("password-check", "r1.password-hash", hash, vec![]),
        (
            "password-check",
            "r1.password-hash",
            &costly,
            vec!["warning not-by-http password-check r1"],
        ),
        (
            "password-check",
            "r1.password-hash",
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$RdescudvJCs",
            vec!["warning not-by-http password-check r1"],
        ),
        (
            "password-check",
            "r1.password-hash",
            "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
            vec![
                "error nothing-to-accept password-check password-check",
                "error unusable password-check r1",
            ],
        ),
    ] {
        let tree = Tree::new(&[(file, content)]);
        finds(&tree, usage, &expected);
        assert!(!check(&tree, usage).out.contains(&canary));
    }
}
