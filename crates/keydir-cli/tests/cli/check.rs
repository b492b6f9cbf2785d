//! `keydir check`: each kind of finding, the exit codes, the shape of its JSON.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde_json::Value;

use crate::support::{Days, Run, Tree, VALID, ca, ca_with, key, keydir, leaf, secret};

pub(crate) fn check(tree: &Tree, uses: &str) -> Run {
    let mut args = vec!["check", "--json"];
    for name in uses.split_whitespace() {
        args.extend(["--use", name]);
    }
    args.push(tree.text());
    keydir(&args)
}

/// Each finding as `severity code use subject`.
fn findings(run: &Run) -> Vec<String> {
    let json = run.json();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or("-").to_owned();
    let findings = json["findings"].as_array().unwrap().iter();
    let lines = findings.map(|finding| {
        assert!(!text(finding, "message").is_empty() && !text(finding, "advice").is_empty());
        ["severity", "code", "use", "subject"]
            .map(|field| text(finding, field))
            .join(" ")
    });
    lines.collect()
}

#[track_caller]
pub(crate) fn finds(tree: &Tree, uses: &str, expected: &[&str]) {
    let run = check(tree, uses);
    assert_eq!(findings(&run), expected);
    let errors = expected.iter().any(|finding| finding.starts_with("error"));
    assert_eq!(run.code, i32::from(errors), "{run:?}");
}

#[test]
fn a_directory_in_order_is_clean() {
    let (one, two) = (leaf(VALID), leaf(VALID));
    let tree = Tree::new(&[
        ("r1.crt", &one.crt),
        ("r1.key", &one.key),
        ("r2.crt.primary", &two.crt),
        ("r2.key", &two.key),
        (".rotation.json", r#"{"publication":"p7"}"#),
    ]);
    finds(&tree, "", &[]);
    let json = check(&tree, "").json();
    assert_eq!(json["uses"], serde_json::json!(["tls-identity"]));
    keydir(&["check", tree.text()]).says(0, &["plain layout, as tls-identity (guessed", "ok: nothing was found"]);
}

#[test]
fn the_fields_of_its_json_stay() {
    let tree = Tree::new(&[
        ("r1.token", &secret("a")),
        (".rotation.json", r#"{"publication":"p7"}"#),
    ]);
    let json = check(&tree, "token").json();
    let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields.join(" "),
        "assumed directory errors findings layout publication uses version warnings"
    );
    assert_eq!(json["version"], 1);
    assert_eq!(json["directory"], tree.text());
    assert_eq!((&json["layout"], &json["publication"]), (&"plain".into(), &"p7".into()));
    assert_eq!(
        (&json["assumed"], &json["errors"], &json["warnings"]),
        (&false.into(), &0.into(), &1.into())
    );
    let finding: Vec<_> = json["findings"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(finding.join(" "), "advice code message severity subject use");
}

#[test]
fn cert_managers_triple_is_a_warning() {
    let pair = leaf(VALID);
    let tree = Tree::new(&[
        ("tls.crt", &pair.crt),
        ("tls.key", &pair.key),
        ("ca.crt", &ca("ca", VALID)),
    ]);
    let fixed = [
        "warning fixed-name - ca",
        "warning fixed-name - tls",
        "warning no-mark tls-identity tls",
    ];
    finds(&tree, "", &fixed);
    finds(&tree, "tls-identity anchors", &fixed);
    let run = keydir(&["check", tree.text()]);
    run.says(0, &["cannot overlap", "an id of its own", "0 errors, 3 warnings"]);
    // As the one or the other alone, the rest is none of its business, and no half of a revision either.
    finds(&tree, "tls-identity", &fixed);
    let anchors = check(&tree, "anchors");
    assert_eq!(anchors.code, 0, "{anchors:?}");
    assert!(!anchors.out.contains("incomplete"), "{anchors:?}");
}

#[test]
fn names_that_are_nearly_right() {
    let token = secret("names");
    let tree = Tree::new(&[
        ("r1.token.primary", &token),
        ("r1.token.bak", "x"),
        ("r1.Revoked", ""),
        ("r1.note", "x"),
        ("R1.token", "other"),
    ]);
    finds(
        &tree,
        "token",
        &[
            "error stray-marker - r1.Revoked",
            "warning case-clash - R1",
            "warning case-clash - r1",
            "warning stray - r1.token.bak",
            "warning unknown-part - r1.note",
        ],
    );
}

#[test]
fn marks() {
    let token = |name: &str| secret(name);
    for (files, uses, expected) in [
        ("r1.token", "token", vec!["warning no-mark token r1"]),
        ("r1.token r2.token", "token", vec!["error unmarked token token"]),
        (
            "r1.token.primary r2.token.primary",
            "token",
            vec!["error ambiguous token token", "warning several-marks - ."],
        ),
        (
            "r1.token.primary p1.password.primary",
            "token password-login",
            vec!["warning several-marks - ."],
        ),
        (
            "r1.token r2.password.primary",
            "token password-login",
            vec!["warning no-mark token r1"],
        ),
        (
            "r1.token.primary r1.revoked",
            "token",
            vec!["error missing token token"],
        ),
        (
            "r1.token.primary c1.username.primary",
            "password-login token",
            vec![
                "error missing password-login password-login",
                "warning idle-mark - c1",
                "warning incomplete password-login c1",
                "warning several-marks - .",
            ],
        ),
        (
            "r1.token r1.token.primary",
            "token",
            vec!["error nothing-to-present token token", "error unusable token r1"],
        ),
        ("r1.token r2.token", "token-check", vec![]),
        (
            "",
            "token-check",
            vec!["error nothing-to-accept token-check token-check"],
        ),
        ("notes.txt", "", vec!["error no-use - ."]),
    ] {
        let tree = Tree::new(&[]);
        for name in files.split_whitespace() {
            tree.write(name, token(name));
        }
        finds(&tree, uses, &expected);
    }
}

#[test]
fn parts_that_cannot_be_used() {
    let (pair, other) = (leaf(VALID), leaf(VALID));
    let pem = key().serialize_pem();
    let nul = format!("{}\0", secret("nul"));
    let lines = format!("{}\nmore", secret("lines"));
    for (uses, files, expected) in [
        (
            "tls-identity",
            &[("r1.crt.primary", pair.crt.as_str()), ("r1.key", &other.key)][..],
            "not the one of the first",
        ),
        (
            "tls-identity",
            &[("r1.crt.primary", &pair.crt), ("r1.key", "garbage")],
            "no PEM block",
        ),
        (
            "tls-identity",
            &[("r1.crt.primary", &pair.key), ("r1.key", &pair.key)],
            "does not belong there",
        ),
        (
            "tls-identity",
            &[("r1.crt.primary", &pair.crt), ("r1.key", "")],
            "empty",
        ),
        ("anchors", &[("c1.crt", &pair.crt)], "not a CA's"),
        ("pinned", &[("c1.crt", "x"), ("c1.pem", "x")], "exactly one certificate"),
        ("symmetric", &[("r1.key.primary", &pem)], "of another kind"),
        ("signing", &[("r1.private.primary", &pair.crt)], "not a private key"),
        ("verifying", &[("r1.public", &pem)], "not a public key"),
        ("token", &[("r1.token.primary", &nul)], "holds a NUL"),
        ("password-login", &[("r1.password.primary", &lines)], "line end"),
        ("password-check", &[("r1.password-hash", &lines[..20])], "no PHC string"),
        ("token-check", &[("r1.token-sha256", &lines[..20])], "64 hex digits"),
    ] {
        let run = check(&Tree::new(files), uses);
        assert!(
            findings(&run)
                .iter()
                .any(|finding| finding.starts_with("error unusable")),
            "{run:?}"
        );
        run.says(1, &[expected]);
    }
}

#[test]
fn an_identity_without_its_key() {
    let (pair, half) = (leaf(VALID), leaf(VALID));
    let tree = Tree::new(&[
        ("r1.crt.primary", &pair.crt),
        ("r1.key", &pair.key),
        ("r2.crt", &half.crt),
    ]);
    finds(&tree, "", &["warning incomplete tls-identity r2"]);
    // A CA in its place is an anchor.
    tree.write("r2.crt", ca("mesh", VALID));
    finds(&tree, "", &[]);
}

#[test]
fn dates() {
    for (days, expected, marked) in [
        (Days(-1, 20), vec!["warning expires-soon tls-identity r1"], true),
        (Days(-9, -1), vec!["error expired tls-identity r1"], true),
        (
            Days(1, 300),
            vec![
                "error nothing-to-present tls-identity tls-identity",
                "warning pending tls-identity r1",
            ],
            true,
        ),
        (Days(1, 300), vec!["warning pending tls-identity r1"], false),
    ] {
        let (pair, other) = (leaf(days), leaf(VALID));
        let mark = if marked { "r1.crt.primary" } else { "r1.crt" };
        let tree = Tree::new(&[(mark, &pair.crt), ("r1.key", &pair.key)]);
        if !marked {
            tree.write("r2.crt.primary", other.crt);
            tree.write("r2.key", other.key);
        }
        finds(&tree, "", &expected);
    }
    let tree = Tree::new(&[("c1.crt", &ca("c", Days(-1, 20)))]);
    finds(&tree, "anchors", &["warning expires-soon anchors c1"]);
    keydir(&["check", "--within", "10", tree.text()]).says(0, &["ok: nothing was found"]);
    let both = ca("a", VALID) + &ca("b", Days(-9, -1));
    finds(
        &Tree::new(&[("c1.pem", &both)]),
        "anchors",
        &["warning partly-expired anchors c1"],
    );
}

#[test]
fn a_crl_that_is_broken_of_another_key_or_expired() {
    let ca = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "mesh");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let (ours, other) = (ca(), ca());
    let crl = |ca: &CertifiedIssuer<'_, KeyPair>, until| {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(ca).unwrap().pem().unwrap()
    };
    let (good, expired, foreign) = (crl(&ours, 2090), crl(&ours, 2021), crl(&other, 2090));
    let tree = Tree::new(&[("c1.crt", &ours.pem()), ("c1.crl", &good)]);
    finds(&tree, "anchors", &[]);
    tree.write("c1.crl", expired);
    finds(&tree, "", &["error crl-expired anchors c1"]);
    let run = keydir(&["check", tree.text()]);
    run.says(
        1,
        &[
            "its CRL of CN=mesh expired 2021-01-01T00:00:00Z",
            "publish the current one",
        ],
    );
    for (crl, says) in [
        ("nothing", "no PEM block X509 CRL"),
        (&*foreign, "not signed with the key"),
    ] {
        tree.write("c1.crl", crl);
        let run = keydir(&["check", "--use", "anchors", tree.text()]);
        run.says(1, &["unusable", says]);
    }
}

#[test]
fn anchors_that_others_would_refuse() {
    let no_usage = ca_with("a", VALID, |_| {});
    finds(
        &Tree::new(&[("c1.crt", &no_usage)]),
        "anchors",
        &["warning strict anchors c1"],
    );
    let bare = ca_with("a", VALID, |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
        params.custom_extensions = vec![constraints];
    });
    let run = check(&Tree::new(&[("c1.crt", &bare)]), "anchors");
    run.says(0, &["not critical", "no subjectKeyIdentifier"]);

    let tree = Tree::new(&[("c1.crt", &ca("same", VALID)), ("c2.crt", &ca("same", VALID))]);
    finds(
        &tree,
        "",
        &["warning same-subject anchors c1", "warning same-subject anchors c2"],
    );
}

#[test]
fn copies_and_leftovers_of_revocations() {
    let token = secret("copy");
    let tree = Tree::new(&[("r1.token.primary", &token), ("r1.bak1.token", &token)]);
    finds(
        &tree,
        "token",
        &["warning duplicate token r1", "warning duplicate token r1.bak1"],
    );
    tree.write("r1.revoked", "");
    let run = check(&tree, "token");
    assert!(
        findings(&run).contains(&"error duplicate-revoked token r1.bak1".to_owned()),
        "{run:?}"
    );
}

#[test]
fn modes() {
    let tree = Tree::new(&[("r1.token.primary", &secret("modes"))]);
    tree.mode("r1.token.primary", 0o644);
    finds(&tree, "token", &["warning exposed - r1.token.primary"]);
    tree.mode("r1.token.primary", 0o602);
    finds(&tree, "token", &["warning writable - r1.token.primary"]);
    tree.mode("r1.token.primary", 0o600);
    tree.mode("", 0o777);
    finds(&tree, "token", &["warning writable - ."]);
    tree.mode("", 0o1777);
    finds(&tree, "token", &[]);
}

#[test]
fn a_publication_id_that_is_none() {
    let tree = Tree::new(&[
        ("r1.token.primary", &secret("id")),
        (".rotation.json", r#"{"publication":7}"#),
    ]);
    finds(&tree, "token", &["warning rotation-json - .rotation.json"]);
}

#[test]
fn the_flat_layout() {
    let tree = Tree::new(&[("username", "app"), ("password", &secret("flat"))]);
    let run = keydir(&["check", "--flat", tree.text()]);
    run.says(0, &["as password-login (guessed", "ok: nothing was found"]);
    std::fs::remove_file(tree.path().join("username")).unwrap();
    keydir(&["check", "--flat", tree.text()]).says(1, &["no part \"username\""]);
    let tree = Tree::new(&[("key", &secret("flat key"))]);
    keydir(&["check", "--flat", tree.text()]).says(1, &["the flat layout has none"]);
}

#[test]
fn wrong_command_lines_are_2() {
    let tree = Tree::new(&[("r1.token.primary", &secret("usage"))]);
    for args in [
        &["check"][..],
        &["check", "--use", "tokens", tree.text()],
        &["check", "--within", "soon", tree.text()],
        &["check", "--no-such", tree.text()],
        &["nonsense"],
        &[],
        &["ls", "/no/such/dir"],
        &["check", "/no/such/dir"],
        &["watch", "/no/such/dir"],
        &["check", "/dev/null"],
    ] {
        let run = keydir(args);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{args:?}");
        assert!(!run.err.is_empty());
    }
    keydir(&["check", "--use", "tokens", tree.text()]).says(2, &["the uses are symmetric"]);
}
