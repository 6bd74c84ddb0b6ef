//! Every requirement that is due is named by a test or listed as not tested, and nothing is both.
//!
//! `docs/requirements.md` has the requirements, `docs/conformance.md` lists what no test names and what is met in part.
//! A test names a requirement in a comment, here or below `#[cfg(test)]` in `src`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The sections of `docs/requirements.md` that are due. Section 18 is about credentials, which do not exist yet.
const DUE: [u32; 18] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20];

/// What `docs/requirements.md` requires, and in which section.
type Requirements = BTreeMap<String, u32>;
type Ids = BTreeSet<String>;

#[derive(Debug, Default)]
struct Conformance {
    /// No test names it.
    untested: Ids,
    /// A test names it, and something is left out.
    partly: Ids,
}

#[test]
fn every_requirement_that_is_due_is_named_by_a_test_or_listed_as_not_tested() {
    let required = requirements(&read("docs/requirements.md"));
    let conformance = conformance(&read("docs/conformance.md"));
    let disagreements = disagreements(&required, &named_by_tests(&required), &conformance);
    assert!(disagreements.is_empty(), "\n{}\n", disagreements.join("\n"));
}

fn disagreements(required: &Requirements, named: &Ids, conformance: &Conformance) -> Vec<String> {
    let Conformance { untested, partly } = conformance;
    let due = required.iter().filter(|(_, section)| DUE.contains(section)).map(|(id, _)| id);
    let forgotten = due
        .filter(|id| !named.contains(*id) && !untested.contains(*id))
        .map(|id| format!("{id}: no test names it, and docs/conformance.md does not say why"));
    let tested = untested.intersection(named).map(|id| format!("{id}: a test names it; it is not untested"));
    let half = partly.difference(named).map(|id| format!("{id}: said to be met in part, but no test names it"));
    let unknown = named
        .iter()
        .chain(untested)
        .chain(partly)
        .filter(|id| !required.contains_key(*id))
        .map(|id| format!("{id}: docs/requirements.md does not know it"));
    forgotten.chain(tested).chain(half).chain(unknown).collect()
}

/// Lines such as `- **DIG-2** …` below headings such as `## 3. Names, tags, digests`.
fn requirements(text: &str) -> Requirements {
    let mut required = Requirements::new();
    let mut section = 0;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.split('.').next().unwrap().parse().unwrap();
        } else if let Some(id) = item(line) {
            let twice = required.insert(id.to_owned(), section);
            assert_eq!(twice, None, "{id} is there twice");
        }
    }
    required
}

fn conformance(text: &str) -> Conformance {
    let mut conformance = Conformance::default();
    let mut heading = "";
    for line in text.lines() {
        if let Some(line) = line.strip_prefix("## ") {
            heading = line;
        } else if let Some(id) = item(line) {
            let ids = match heading {
                "Not tested" => &mut conformance.untested,
                "Met in part" => &mut conformance.partly,
                other => panic!("{id} is below `{other}`"),
            };
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
        }
    }
    conformance
}

fn item(line: &str) -> Option<&str> {
    line.strip_prefix("- **")?.split_once("**").map(|(id, _)| id)
}

fn named_by_tests(required: &Requirements) -> Ids {
    let mut named = Ids::new();
    for path in sources("tests").into_iter().chain(sources("src")) {
        let text = fs::read_to_string(&path).unwrap();
        named.extend(named_in(test_code(&path, &text), required));
    }
    named
}

/// The part of a source that is test code: all of a file of tests, and of any other what is below its tests' heading.
fn test_code<'a>(path: &Path, text: &'a str) -> &'a str {
    let mut names = path.iter().map(|name| name.to_str().unwrap());
    if path.ends_with("tests/requirements.rs") {
        // It speaks of requirements, and covers none.
        return "";
    }
    if names.any(|name| matches!(name, "tests" | "tests.rs" | "contract" | "contract.rs" | "on_s3" | "on_s3.rs")) {
        return text;
    }
    // A `mod tests;` that only names another file does not count.
    text.find("#[cfg(test)]\nmod tests {").map_or("", |start| &text[start..])
}

/// The ids in a text's comments. A word is one if it looks like a requirement's, so that a wrong number is found too.
fn named_in(text: &str, required: &Requirements) -> Ids {
    let kinds: BTreeSet<&str> = required.keys().filter_map(|id| id.split_once('-')).map(|(kind, _)| kind).collect();
    let is_id = |word: &&str| {
        word.split_once('-').is_some_and(|(kind, number)| kinds.contains(kind) && number.parse::<u32>().is_ok())
    };
    let comments = text.lines().filter_map(|line| line.split_once("//")).map(|(_, comment)| comment);
    let words = comments.flat_map(|comment| comment.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    words.filter(is_id).map(ToOwned::to_owned).collect()
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_owned());
            }
        }
    }
    found
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

const REQUIRED: &str =
    "# Requirements\n## 3. Names\n- **DIG-1** one\n- **DIG-2** two\ntext\n## 18. Tokens\n- **TOK-1** three\n";

fn judged(tests: &str, conforms: &str) -> Vec<String> {
    let required = requirements(REQUIRED);
    disagreements(&required, &named_in(tests, &required), &conformance(conforms))
}

#[test]
fn a_requirement_that_is_due_must_be_somewhere_and_one_that_is_not_need_not() {
    let missing = "DIG-2: no test names it, and docs/conformance.md does not say why";
    assert_eq!(judged("// DIG-1\nfn a() {}", ""), [missing]);
    assert_eq!(judged("// DIG-1, DIG-2", ""), [""; 0]);
    assert_eq!(judged("// DIG-1", "## Not tested\n- **DIG-2**: not yet\n"), [""; 0]);
}

#[test]
fn what_a_test_names_is_not_untested_and_only_that_can_be_met_in_part() {
    let both = judged("// DIG-1, DIG-2", "## Not tested\n- **DIG-2**: not yet\n");
    assert_eq!(both, ["DIG-2: a test names it; it is not untested"]);
    let neither = judged("// DIG-1", "## Not tested\n- **DIG-2**: no\n## Met in part\n- **TOK-1**: no\n");
    assert_eq!(neither, ["TOK-1: said to be met in part, but no test names it"]);
    assert_eq!(judged("// DIG-1, DIG-2: half", "## Met in part\n- **DIG-2**: half\n"), [""; 0]);
}

#[test]
fn an_id_that_is_not_required_is_found_and_other_words_are_not() {
    let unknown = judged("// DIG-1, (DIG-2). See DIG-12, SHA-256 and xDIG-3", "");
    assert_eq!(unknown, ["DIG-12: docs/requirements.md does not know it"]);
}

#[test]
fn only_comments_of_test_code_name_requirements() {
    assert_eq!(judged("// DIG-1\nlet text = \"DIG-2\";", "").len(), 1);
    let source = "// DIG-1\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    // DIG-2\n}\n";
    assert!(!test_code(Path::new("src/oci/a.rs"), source).contains("DIG-1"));
    assert!(test_code(Path::new("src/oci/a.rs"), source).contains("DIG-2"));
    assert_eq!(test_code(Path::new("src/oci/a.rs"), "// DIG-1\n#[cfg(test)]\nmod tests;"), "");
    assert_eq!(test_code(Path::new("src/oci/a/tests.rs"), source), source);
    assert_eq!(test_code(Path::new("src/store/contract/a.rs"), source), source);
    assert_eq!(test_code(Path::new("tests/requirements.rs"), source), "");
}
