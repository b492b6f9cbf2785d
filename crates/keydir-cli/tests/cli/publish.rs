//! `keydir publish`: sequences of publications, what is refused, two writers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde_json::Value;

use crate::support::{Run, Tree, VALID, ca, key, keydir, leaf, secret, with_stdin};

/// A directory to publish to, beside the files that are published.
struct Desk {
    tree: Tree,
    dir: String,
}

impl Desk {
    fn new() -> Self {
        let tree = Tree::new(&[]);
        let dir = tree.join("keys");
        Self { tree, dir }
    }

    /// Publishes; `name=content` names a file with that secret in it.
    fn publish(&self, args: &[&str]) -> Run {
        let mut all = vec!["publish".to_owned(), self.dir.clone()];
        for arg in args {
            all.push(match arg.split_once('=') {
                Some((name, content)) => {
                    let file = self.tree.write(&format!("input-{name}"), secret(content));
                    format!("{name}={}", file.display())
                }
                None => (*arg).to_owned(),
            });
        }
        keydir(&all)
    }

    fn published(&self) -> String {
        let entries = fs::read_dir(format!("{}/..data", self.dir)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.retain(|name| name != ".rotation.json");
        names.sort();
        names.join(" ")
    }

    /// It is refused with this reason, and nothing has changed.
    #[track_caller]
    fn refuses(&self, args: &[&str], reason: &str) {
        let before = self.published();
        self.publish(args).says(1, &["keydir: not published: ", reason]);
        assert_eq!(self.published(), before);
    }
}

/// Each event of a use as `event id`.
fn events(run: &Run) -> Vec<String> {
    let json = run.json();
    assert_eq!(json["published"], true, "{json}");
    let uses = json["uses"].as_array().unwrap();
    let events = uses.iter().flat_map(|of| of["events"].as_array().unwrap().clone());
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or("-").to_owned();
    events
        .map(|event| format!("{} {}", text(&event, "event"), text(&event, "id")))
        .collect()
}

#[test]
fn stage_promote_retire_and_revoke() {
    let desk = Desk::new();
    for (args, expected, files) in [
        (
            &["r1.token.primary=one"][..],
            &["staged r1", "promoted r1"][..],
            "r1.token.primary",
        ),
        (&["r2.token=two"], &["staged r2"], "r1.token.primary r2.token"),
        (
            &["--promote", "r2"],
            &["promoted r2", "retiring r1"],
            "r1.token r2.token.primary",
        ),
        (&["--remove", "r1"], &["retired r1"], "r2.token.primary"),
        (&["r3.token=three"], &["staged r3"], "r2.token.primary r3.token"),
        (
            &["--revoke", "r2", "--promote", "r3"],
            &["revoked r2", "promoted r3"],
            "r2.revoked r2.token r3.token.primary",
        ),
        (&["--remove", "r2", "--remove", "r2.revoked"], &[], "r3.token.primary"),
    ] {
        let run = desk.publish(&[args, &["--json"]].concat());
        assert_eq!(events(&run), expected, "{args:?}");
        assert_eq!(desk.published(), files);
        keydir(&["check", &desk.dir]).says(0, &[]);
    }
}

#[test]
fn the_fields_of_its_json_stay() {
    let desk = Desk::new();
    let json = desk.publish(&["--json", "r1.token.primary=one"]).json();
    let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields.join(" "),
        "assumed directory files planned publication published refused uses version warnings"
    );
    assert_eq!(
        json["files"],
        serde_json::json!({"added": ["r1.token.primary"], "removed": [], "changed": []})
    );
    let refused = desk.publish(&["--json", "r1.token.tmp=x"]);
    assert_eq!((refused.code, refused.err.as_str()), (1, ""));
    let json = refused.json();
    assert_eq!(
        (&json["published"], &json["publication"]),
        (&false.into(), &Value::Null)
    );
    assert!(
        json["refused"][0]
            .as_str()
            .unwrap()
            .contains("no name of the convention")
    );
}

#[test]
fn what_it_prints_for_people() {
    let desk = Desk::new();
    desk.publish(&["r1.token.primary=one"]).says(
        0,
        &[
            "published ",
            "(publication ",
            "  + r1.token.primary\n",
            "  as token (guessed): staged r1; promoted r1\n",
        ],
    );
    desk.publish(&["--promote", "r2", "r2.token=two"]).says(
        0,
        &[
            "  + r2.token.primary\n",
            "  - r1.token.primary\n",
            "promoted r2; r1 is retiring",
            "cannot accept",
        ],
    );
    desk.publish(&["--promote", "r2"])
        .says(0, &["unchanged ", "nothing was published"]);
}

#[test]
fn a_plan_changes_nothing() {
    let desk = Desk::new();
    desk.publish(&["--plan", "r1.token.primary=one"])
        .says(0, &["would publish ", "staged r1; promoted r1"]);
    assert!(!fs::exists(&desk.dir).unwrap());
    desk.publish(&["r1.token.primary=one"]);
    let before = fs::read_link(format!("{}/..data", desk.dir)).unwrap();
    let run = desk.publish(&["--plan", "--json", "r2.token=two"]);
    assert_eq!(
        (run.code, &run.json()["planned"], &run.json()["published"]),
        (0, &true.into(), &false.into())
    );
    desk.publish(&["--plan", "--remove", "r1"]).says(1, &["not published"]);
    assert_eq!(fs::read_link(format!("{}/..data", desk.dir)).unwrap(), before);
}

#[test]
fn what_readers_would_not_take_is_refused() {
    let desk = Desk::new();
    // Not even a directory is made.
    desk.refuses(&["r1.key.tmp=x"], "no name of the convention");
    desk.refuses(&["r1.token=a", "r2.token=b"], "no revision is marked .primary");
    desk.refuses(&["r1.token=a", "R1.token.primary=b"], "differ only in case");
    assert!(!fs::exists(&desk.dir).unwrap());
    desk.publish(&["r1.token.primary=one", "r2.token=two"]).says(0, &[]);
    for (args, reason) in [
        (&["r1.token.primary=other"][..], "other content than before"),
        (&["r1.token=one"], "r1.token.primary is there already"),
        (&["r3.token.primary=three"], "as token only one may be"),
        (&["p1.password.primary=three"], "give each use a directory of its own"),
        (&["--remove", "r1"], "no primary would be left"),
        (&["--remove", "r1", "--remove", "r2"], "nothing usable would be left"),
        (&["--remove", "r9"], "no file and no revision"),
        (&["--promote", "r9"], "stage it first"),
        (&["--revoke", "r9"], "no revision of this id"),
        (&["--replace", "r2.token=two"], "no primary would be left"),
        (&["--replace", "r3.note=x"], "nothing usable would be left"),
    ] {
        desk.refuses(args, reason);
    }
    let empty = desk.tree.write("empty", "");
    let run = keydir(&["publish", &desk.dir, &format!("r3.token={}", empty.display())]);
    run.says(1, &["r3: part token: it is empty"]);
    let huge = desk.tree.write("huge", vec![b'x'; (1 << 20) + 1]);
    let run = keydir(&["publish", &desk.dir, &format!("r3.token={}", huge.display())]);
    run.says(1, &["more than 1048576 bytes"]);
    assert_eq!(desk.published(), "r1.token.primary r2.token");

    desk.publish(&["--force", "r1.token.primary=other"])
        .says(0, &["replaced r1", "  ~ r1.token.primary"]);
    desk.publish(&["--force", "--remove", "r1"])
        .says(0, &["no primary would be left"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, two) = (leaf(VALID), leaf(VALID));
    let tree = Tree::new(&[("one.crt", &one.crt), ("one.key", &one.key), ("two.crt", &two.crt)]);
    tree.write("two.key", &two.key);
    let dir = tree.join("keys");
    let publish = |crt: &str, key: &str| {
        let (crt, key) = (tree.join(crt), tree.join(key));
        keydir(&[
            "publish",
            &dir,
            &format!("r1.crt.primary={crt}"),
            &format!("r1.key={key}"),
        ])
    };
    publish("one.crt", "two.key").says(1, &["not the one of the first certificate"]);
    publish("one.crt", "one.key").says(0, &[]);
    let half = format!("r2.crt={}", tree.join("two.crt"));
    keydir(&["publish", &dir, &half]).says(0, &["without its key"]);
    let key = format!("r2.key={}", tree.join("two.key"));
    keydir(&["publish", &dir, &key]).says(0, &["as tls-identity (guessed): staged r2"]);
    // The certificate alone would turn into something to trust.
    keydir(&["publish", &dir, "--remove", "r2.key"]).says(1, &["r2: one of its parts is gone"]);
}

#[test]
fn accept_only_uses_need_no_mark_but_something_to_accept() {
    let tree = Tree::new(&[
        ("c1", &ca("c1", VALID)),
        ("c2", &ca("c2", VALID)),
        ("leaf", &leaf(VALID).crt),
    ]);
    let dir = tree.join("trust");
    let publish = |args: &[&str]| {
        let all: Vec<_> = ["publish", dir.as_str()].iter().chain(args).copied().collect();
        keydir(&all)
    };
    let file = |name: &str| format!("{name}.crt={}", tree.join(name));
    publish(&[&file("c1"), &file("c2")]).says(0, &["as anchors (guessed): staged c1; staged c2"]);
    publish(&["--remove", "c1", "--remove", "c2"]).says(1, &["nothing usable would be left"]);
    publish(&[&file("leaf")]).says(1, &["not a CA's", "--use says it"]);
    publish(&["--remove", "c1"]).says(0, &["retired c1"]);
    let pins = tree.join("pins");
    keydir(&["publish", &pins, "--use", "pinned", &file("leaf")]).says(0, &["as pinned: staged leaf"]);
}

/// Readers would go on with the list that they have, and new ones without any.
#[test]
fn a_crl_that_would_be_gone_is_refused() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mesh = CertifiedIssuer::self_signed(params, key()).unwrap();
    let crl = |number| {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2090, 1, 1),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&mesh).unwrap().pem().unwrap()
    };
    let tree = Tree::new(&[
        ("c1", &mesh.pem()),
        ("c2", &ca("c2", VALID)),
        ("crl-1", &crl(1)),
        ("crl-2", &crl(2)),
        ("broken", "none"),
    ]);
    let dir = tree.join("trust");
    let publish = |args: &[&str]| {
        let all: Vec<_> = ["publish", dir.as_str()].iter().chain(args).copied().collect();
        keydir(&all)
    };
    let file = |name: &str, from: &str| format!("{name}={}", tree.join(from));
    publish(&[&file("c1.crt", "c1"), &file("c1.crl", "crl-1")]).says(0, &["staged c1"]);
    publish(&[&file("c1.crl", "crl-2"), &file("c2.crt", "c2")]).says(0, &["updated c1 (its crl)", "staged c2"]);
    let gone = "its part crl is gone";
    publish(&["--remove", "c1.crl"]).says(1, &["not published", gone]);
    publish(&["--replace", &file("c1.crt", "c1"), &file("c2.crt", "c2")]).says(1, &["not published", gone]);
    // Under another id it is the same certificate.
    publish(&["--remove", "c1", &file("c3.crt", "c1")]).says(1, &["not published", gone]);
    publish(&[&file("c1.crl", "broken")]).says(1, &["not published", "no PEM block"]);
    assert!(fs::exists(format!("{dir}/c1.crl")).unwrap());
    publish(&["--force", "--remove", "c1.crl"]).says(0, &["  - c1.crl", gone]);
    publish(&[&file("c1.crl", "crl-2")]).says(0, &["  + c1.crl"]);
    // With its CA it may go.
    publish(&["--remove", "c1"]).says(0, &["retired c1"]);
}

#[test]
fn standard_input_is_one_of_the_files() {
    let desk = Desk::new();
    let token = secret("piped");
    let run = with_stdin(&["publish", &desk.dir, "r1.token.primary=-"], token.as_bytes());
    run.says(0, &["staged r1"]);
    assert_eq!(
        fs::read_to_string(format!("{}/r1.token.primary", desk.dir)).unwrap(),
        token
    );
    with_stdin(&["publish", &desk.dir, "r2.token=-", "r3.token=-"], b"x").says(2, &["only one of the files"]);
    with_stdin(&["publish", &desk.dir, "r2.token=-"], &vec![b'x'; 3 << 20]).says(1, &["more than 1048576 bytes"]);
}

#[test]
fn wrong_command_lines_are_2() {
    let desk = Desk::new();
    for args in [
        &[][..],
        &["r1.token"],
        &["=x"],
        &["--remove", "a", "--replace", "r1.token=x"],
        &["r1.token=a", "r1.token=b"],
        &["--promote"],
    ] {
        assert_eq!(desk.publish(args).code, 2, "{args:?}");
    }
    let missing = keydir(&["publish", &desk.dir, "r1.token=/no/such/file"]);
    missing.says(2, &["/no/such/file", "r1.token"]);
    keydir(&["publish", &desk.dir, "r1.token=/tmp"]).says(2, &["it is a directory"]);
    assert!(!fs::exists(&desk.dir).unwrap());
}

#[test]
fn of_two_writers_one_is_told_to_wait() {
    let desk = Desk::new();
    desk.publish(&["r1.token.primary=one"]);
    let writer = keydir::Publisher::open(&desk.dir).unwrap();
    desk.refuses(&["r2.token=two"], "another writer has it locked");
    drop(writer);
    desk.publish(&["r2.token=two"]).says(0, &[]);
}

#[test]
fn a_plain_directory_is_converted_on_purpose() {
    let desk = Desk::new();
    fs::create_dir(&desk.dir).unwrap();
    fs::write(format!("{}/r1.token.primary", desk.dir), secret("plain")).unwrap();
    desk.publish(&["r2.token=two"])
        .says(1, &["is a plain directory", "--convert"]);
    desk.publish(&["--convert", "r2.token=two"]).says(0, &["staged r2"]);
    assert_eq!(desk.published(), "r1.token.primary r2.token");
    let alone = Tree::new(&[("r1.token.primary", &secret("alone"))]);
    keydir(&["publish", alone.text(), "--convert"]).says(0, &["published"]);
    assert_eq!(alone.published(), ["r1.token.primary"]);
}

#[test]
fn what_cannot_be_published_again_is_not_dropped_silently() {
    let desk = Desk::new();
    desk.publish(&["r1.token.primary=one"]);
    fs::write(format!("{}/..data/notes", desk.dir), "x").unwrap();
    desk.refuses(&["r2.token=two"], "notes is in the current set");
    desk.publish(&["r2.token=two", "--remove", "notes"]).says(0, &[]);
    assert_eq!(desk.published(), "r1.token.primary r2.token");
}

#[test]
fn each_publication_has_an_id_of_its_own_and_keeps_a_rotators_state() {
    let desk = Desk::new();
    let id = |run: &Run| run.json()["publication"].as_str().unwrap().to_owned();
    let first = id(&desk.publish(&["--json", "r1.token.primary=one"]));
    let state = desk.tree.write("state", r#"{"publication":"p7","phase":"staged"}"#);
    let given = keydir(&[
        "publish",
        &desk.dir,
        "--json",
        &format!(".rotation.json={}", state.display()),
    ]);
    assert_eq!(id(&given), "p7");
    let second = id(&desk.publish(&["--json", "r2.token=two"]));
    assert!(first != second && second != "p7");
    let json = fs::read(format!("{}/..data/.rotation.json", desk.dir)).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (&json["publication"], &json["phase"]),
        (&second.into(), &"staged".into())
    );
}

#[test]
fn the_group_keeps_what_it_may_read() {
    let desk = Desk::new();
    let mode = || {
        let file = fs::metadata(format!("{}/r1.token.primary", desk.dir)).unwrap();
        file.permissions().mode() & 0o777
    };
    desk.publish(&["r1.token.primary=one"]);
    assert_eq!(mode(), 0o600);
    desk.publish(&["r2.token=two", "--group-readable"]);
    assert_eq!(mode(), 0o640);
    desk.publish(&["r3.token=three"]);
    assert_eq!(mode(), 0o640);
}
