//! What the documents say of the code, as far as a test can tell.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_readme_lists_every_setting_with_its_default() {
    let output = Command::new(env!("CARGO_BIN_EXE_marina-distribution")).arg("config").env_clear().output().unwrap();
    let effective = String::from_utf8(output.stdout).unwrap();
    let settings: BTreeMap<_, _> = effective
        .lines()
        .map(|line| line.split_once("  # default").unwrap().0.split_once(" = ").unwrap())
        .map(|(name, default)| (name.to_owned(), default.trim_matches('"').to_owned()))
        .collect();

    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut listed = BTreeMap::new();
    for line in readme.lines().filter(|line| line.starts_with("| `--") && !line.starts_with("| `--config`")) {
        let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        let [flag, variable, key, default, _] = cells.as_slice() else { panic!("{line}") };
        assert_eq!(*flag, format!("--{}", key.replace('_', "-")));
        assert_eq!(*variable, format!("MARINA_{}", key.to_uppercase()));
        listed.insert((*key).to_owned(), (*default).to_owned());
    }
    assert_eq!(listed, settings);
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut missing = BTreeSet::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let linked = links(&text).map(|link| document.parent().unwrap().join(link));
        let quoted = paths(&text).map(|path| Path::new(ROOT).join(path));
        let name = document.strip_prefix(ROOT).unwrap().display();
        missing.extend(
            linked.chain(quoted).filter(|file| !file.exists()).map(|file| format!("{name}: {}", file.display())),
        );
    }
    assert_eq!(missing, BTreeSet::new());
}

/// Targets of links that are no URLs, without what follows `#`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).filter_map(|target| target.split('#').next())
}

/// Paths in backticks. One with a `<` or an `…` is a pattern, and no path.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let is_path = |quoted: &&str| {
        ["src/", "tests/", "docs/"].iter().any(|folder| quoted.starts_with(folder))
            && !quoted.contains(['<', '…', '*', ' '])
    };
    quoted.filter(is_path)
}

fn documents() -> Vec<PathBuf> {
    let in_folder =
        |folder: &str| fs::read_dir(Path::new(ROOT).join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let all = in_folder(".").chain(in_folder("docs")).chain(in_folder("docs/design"));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

#[test]
fn links_and_paths_are_found_and_patterns_and_urls_are_not() {
    let text = "[a](docs/a.md#top) [b](https://example.org/c.md) `src/x.rs` and `docs/design/NNNN-<name>.md`, `tests/`";
    assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md"]);
    assert_eq!(paths(text).collect::<Vec<_>>(), ["src/x.rs", "tests/"]);
}
