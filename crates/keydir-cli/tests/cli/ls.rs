//! `keydir ls`: the revisions, and how each stands.

use crate::support::{Days, Tree, VALID, ca, keydir, leaf, secret};

fn rows(tree: &Tree, uses: &[&str]) -> Vec<String> {
    let mut args = vec!["ls"];
    for name in uses {
        args.extend(["--use", name]);
    }
    args.push(tree.text());
    let run = keydir(&args);
    assert_eq!(run.code, 0, "{run:?}");
    run.out.lines().map(str::to_owned).collect()
}

/// The row without its date.
fn states(tree: &Tree, uses: &[&str]) -> Vec<String> {
    let short = |row: &String| {
        let fields: Vec<_> = row.split(' ').collect();
        assert_eq!(fields.len(), 6, "{row}");
        format!("{} {} {} {}", fields[0], fields[1], fields[2], fields[3])
    };
    rows(tree, uses).iter().map(short).collect()
}

#[test]
fn states_of_an_identity() {
    let pairs = [VALID, VALID, Days(1, 300), Days(-9, -1), VALID].map(leaf);
    let tree = Tree::new(&[]);
    for (number, pair) in (1..).zip(&pairs) {
        let mark = if number == 2 { ".primary" } else { "" };
        tree.write(&format!("r{number}.crt{mark}"), &pair.crt);
        tree.write(&format!("r{number}.key"), &pair.key);
    }
    tree.write("r5.revoked", "");
    tree.write("r10.crt", &pairs[0].crt);
    tree.write("r10.key", &pairs[1].key);
    tree.write("r11.revoked", "");
    assert_eq!(
        states(&tree, &[]),
        [
            "r1 - tls-identity usable",
            "r2 marked tls-identity primary",
            "r3 - tls-identity usable,pending",
            "r4 - tls-identity usable,expired",
            "r5 - tls-identity revoked",
            "r10 - tls-identity unusable",
            "r11 - - revoked",
        ]
    );
    let run = keydir(&["ls", "--json", tree.text()]);
    let json = run.json();
    let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields.join(" "),
        "assumed directory layout publication revisions uses version"
    );
    assert_eq!(
        json["uses"][0],
        serde_json::json!({"use": "tls-identity", "primary": "r2", "no_primary": null})
    );
    let fields: Vec<_> = json["revisions"][0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.join(" "), "id marked parts revoked states");
    let state = &json["revisions"][1]["states"]["tls-identity"];
    let fields: Vec<_> = state.as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.join(" "), "expired not_after pending reason state");
    assert_eq!(state["state"], "primary");
    assert!(state["not_after"].as_str().unwrap().ends_with('Z'));
    let unusable = &json["revisions"][5]["states"]["tls-identity"];
    assert_eq!(unusable["state"], "unusable");
    assert!(
        unusable["reason"].as_str().unwrap().contains("private key"),
        "{unusable}"
    );
}

#[test]
fn several_uses_and_accepted_revisions() {
    let pair = leaf(VALID);
    let tree = Tree::new(&[
        ("i1.crt.primary", &pair.crt),
        ("i1.key", &pair.key),
        ("c1.crt", &ca("c1", VALID)),
        ("c2.pem", &ca("c2", Days(-9, -1))),
        ("t1.token", &secret("ls")),
    ]);
    assert_eq!(
        states(&tree, &["anchors", "tls-identity"]),
        [
            "c1 - anchors accepted",
            "c2 - anchors accepted,expired",
            "i1 marked tls-identity primary",
            "t1 - - -"
        ]
    );
}

#[test]
fn publications_and_reasons() {
    let tree = Tree::new(&[]);
    let token = tree.write("input", secret("ls"));
    let dir = tree.join("keys");
    let file = format!("r1.token={}", token.display());
    let published = keydir(&["publish", "--json", &dir, &file]).json();
    let json = keydir(&["ls", "--json", &dir]).json();
    assert_eq!(json["layout"], "kubelet");
    assert_eq!(json["publication"], published["publication"]);
    assert_eq!(json["publication"].as_str().unwrap().len(), 32);

    let tree = Tree::new(&[("r1.token", &secret("1")), ("r2.token", &secret("2"))]);
    let json = keydir(&["ls", "--json", tree.text()]).json();
    assert_eq!(json["uses"][0]["primary"], serde_json::Value::Null);
    assert!(json["uses"][0]["no_primary"].as_str().unwrap().contains("mark one"));

    let empty = Tree::new(&[]);
    assert_eq!(rows(&empty, &[]), [""; 0]);
}
