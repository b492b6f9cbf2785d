//! What examples/README.md and docs/adopt.md tell people to type, typed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests report by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use keydir_integration::{Call, End, PlainClient, Program, Serve, Version, eventually, tool};
use serde_json::Value;

/// The shell commands of a page, one text for each block.
fn blocks(page: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```sh\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

fn shell(script: &str, folder: &Path) -> End {
    let mut command = tool("bash", "bash");
    let end = Program::run(command.args(["-euc", script]).current_dir(folder));
    assert_eq!(end.code, Some(0), "{script}\n{end:?}");
    end
}

/// The steps of a script: each ends with a comment, or with the loop that the comment stands over.
fn steps(script: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    for line in script.lines() {
        let step = steps.last_mut().unwrap();
        step.push_str(line);
        step.push('\n');
        let in_loop = step.contains("\ndo") || step.contains("; do");
        if line == "done" || (!in_loop && line.contains("  # ")) {
            steps.push(String::new());
        }
    }
    steps.retain(|step| !step.is_empty());
    steps
}

#[test]
fn the_rotation_by_hand() {
    tool("openssl", "openssl");
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let here = |text: &str| text.replace("/tmp/try", folder.to_str().unwrap());
    let blocks = blocks("examples/README.md");
    let begin = |start: &str| {
        let block = blocks.iter().find(|block| block.starts_with(start));
        block.unwrap_or_else(|| panic!("no block of the page begins with {start}"))
    };
    let prepare = here(begin("cargo build")).replace("cargo build -p keydir-examples\n", "");
    shell(&prepare, folder);

    let [ca, server, client] = ["ca", "server", "client"].map(|name| folder.join(name));
    let serve = Serve::start(&server, &["--clients", ca.to_str().unwrap()]);
    let call = Call::start(&ca, Some(&client), &["--count", "0", "--every", "20"], &serve.url());
    call.until("a resumed session", |line| line["resumed"] == true);

    let curl = here(begin("cd /tmp/try\ncurl")).replace("8443", &serve.port.to_string());
    let curl = curl.lines().take(2).collect::<Vec<_>>().join("\n");
    let end = shell(&curl, folder);
    let answer: Value = serde_json::from_str(&end.stdout).unwrap();
    assert_eq!(answer["client"]["subject"], "CN=client");
    assert_eq!(answer["client"]["ca"], "c1");

    let steps = steps(&here(begin("cd /tmp/try\nca c2")));
    // The functions of the first block are needed again.
    let functions = prepare.split("ca c1 &&").next().unwrap();
    let loaded = |directory: &Path, rest: &str| {
        let directory = format!("loaded directory={directory:?} ");
        let is_it = |log: &str| {
            log.lines()
                .any(|line| line.contains(&directory) && line.ends_with(rest))
        };
        let of_serve = directory.contains("/server\"") || directory.contains("/ca\"");
        let of_call = directory.contains("/client\"") || directory.contains("/ca\"");
        eventually(rest, || {
            (!of_serve || is_it(&serve.program.errors())) && (!of_call || is_it(&call.0.errors()))
        });
    };
    let expected: [(&[&Path], &str); 6] = [
        (&[&ca], "generation=2 revisions=2"),
        (&[&server, &client], "generation=2 revisions=1 primary=\"r1\""),
        (&[&server, &client], "revisions=2 primary=\"r1\""),
        (&[&server, &client], "revisions=2 primary=\"r2\""),
        (&[&server, &client], "revisions=1 primary=\"r2\""),
        (&[&ca], "generation=3 revisions=1"),
    ];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, (directories, rest)) in steps.iter().zip(expected) {
        shell(&format!("{functions}\ncd {}\n{step}", folder.display()), folder);
        directories.iter().for_each(|directory| loaded(directory, rest));
    }
    call.until("r2, c2 and a resumed session", |line| {
        line["identity"] == "r2" && line["server_ca"] == "c2" && line["resumed"] == true
    });
    serve.stop();
}

#[test]
fn the_deploy_hook_publishes_in_one_step() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path();
    let keys = folder.join("keys");
    let hook = blocks("docs/adopt.md").remove(0);
    assert!(hook.starts_with("#!/bin/sh\n"));
    let hook = hook.replace("/var/lib/keydir/server-tls", keys.to_str().unwrap());
    // Two in one second would be one revision.
    let hook = hook.replace("%H%M%SZ", "%H%M%S.%NZ");
    let ca = keydir_integration::Ca::new("ACME");
    let renew = || {
        let leaf = ca.leaf("server");
        fs::write(folder.join("fullchain.pem"), leaf.crt).unwrap();
        fs::write(folder.join("privkey.pem"), leaf.key).unwrap();
        let mut command = Command::new("sh");
        let end = Program::run(command.args(["-c", &hook]).env("RENEWED_LINEAGE", folder));
        assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    };
    renew();
    let serve = Serve::start(&keys, &[]);
    let client = || PlainClient::new(serve.port, &[&ca], None, Version::Tls13);
    let revision = || client().json().unwrap()["revision"].clone();
    for _ in 0..3 {
        let before = revision();
        renew();
        eventually("the new certificate is presented", || revision() != before);
        let left: Vec<_> = fs::read_dir(&keys)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "something is left behind: {left:?}");
    }
    let end = serve.stop();
    assert!(
        !end.stderr.contains("ERROR") && !end.stderr.contains("WARN"),
        "{}",
        end.stderr
    );
}
