//! The README shows the lines that the sources have, and counts them right.

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_readme_shows_the_lines_of_keydir_in_each_host() {
    let readme = read("README.md");
    let (table, sections) = readme.split_once("\n## `").unwrap();
    let mut shown = Vec::new();
    for section in sections.split("\n## `") {
        let (path, text) = section.split_once('`').unwrap();
        let source = read(path);
        let mut lines = 0;
        for block in text.split("```rust\n").skip(1) {
            let (code, _) = block.split_once("\n```").unwrap();
            assert!(source.contains(code), "{path} has no longer:\n{code}");
            lines += code.lines().count();
        }
        assert!((1..=10).contains(&lines), "{path}: {lines} lines");
        let row = format!("({path}) | {lines} |");
        assert!(table.contains(&row), "the table does not say: {row}");
        shown.push(path.to_owned());
    }
    let sources = fs::read_dir(Path::new(ROOT).join("src")).unwrap();
    let names = sources.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut hosts: Vec<_> = names.map(|name| format!("src/{name}")).collect();
    hosts.retain(|path| path.ends_with("_server.rs") || path.ends_with("_client.rs"));
    hosts.sort();
    shown.sort();
    assert_eq!(shown, hosts);
}
