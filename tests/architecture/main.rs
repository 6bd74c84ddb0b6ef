//! The map in `lib.rs`, held against the sources: who may name whom, and what stands where.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod scan;

use std::{
    fs,
    path::{Path, PathBuf},
};

use scan::{Token, rooms, tokens, without};

/// Each room, and those below it. What is not listed is the top, and may name all.
const ROOMS: [(&str, &[&str]); 6] = [
    ("oci", &[]),
    ("store", &[]),
    ("registry", &["oci", "store"]),
    ("http", &["oci", "registry", "store"]),
    ("config", &[]),
    ("server", &["config", "http", "oci", "registry", "store"]),
];

/// How the names of crates begin, and where alone they may be named.
const CRATES: [(&[&str], &[&str]); 2] =
    [(&["axum", "hyper", "http_body"], &["src/http/", "src/server", "src/main.rs"]), (&["aws_"], &["src/store/s3"])];

/// How keys begin, and the one file that says so.
const KEYS: [&str; 11] = [
    "blobs/", "catalog/", "data/", "doctor/", "dropped/", "fleet/", "gc/", "history/", "pending/", "repos/", "uploads/",
];
const LAYOUT: &str = "src/registry/layout.rs";

/// The most lines of a file, tests not counted.
const LINES: usize = 400;

#[test]
fn the_sources_keep_to_the_map() {
    let sources = sources();
    assert!(sources.iter().any(|(path, _)| path == LAYOUT), "the sources are not where they are looked for");
    let tests: Vec<String> = sources.iter().flat_map(|(path, text)| modules_of_tests(path, text)).collect();
    let shipped = sources.iter().filter(|(path, _)| !tests.iter().any(|module| is_in(path, module)));
    let violations: Vec<String> = shipped.flat_map(|(path, text)| violations(path, text)).collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// All source files, by their paths from the root of the repository.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<PathBuf> = vec![root.join("src")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The modules that a file declares for tests only, as paths without an extension.
fn modules_of_tests(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let declared = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
    let named = declared.filter_map(|pair| pair[1].trim().strip_suffix(';')?.split_once("mod "));
    named.map(|(_, name)| ["src"].into_iter().chain(module(path)).chain([name]).collect::<Vec<_>>().join("/")).collect()
}

fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// The path of a file's module.
fn module(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|segment| !matches!(*segment, "mod" | "lib" | "main"))
}

/// What a file does that it should not.
fn violations(path: &str, text: &str) -> Vec<String> {
    let row = tokens(text);
    let shipped = without(&row, |attribute| attribute == "cfg(test)");
    let mut found = Vec::new();
    found.extend(rooms_above(path, &shipped));
    found.extend(crates_elsewhere(path, &shipped));
    found.extend(keys_elsewhere(path, &shipped));
    found.extend(panics(&row));
    found.extend(too_long(text));
    found.into_iter().map(|(line, what)| format!("{path}:{line}: {what}")).collect()
}

fn rooms_above(path: &str, row: &[&Token]) -> Vec<(usize, String)> {
    let room = module(path).next();
    let Some((room, below)) = ROOMS.into_iter().find(|(name, _)| Some(*name) == room) else { return Vec::new() };
    let named = rooms(row, module(path).count()).into_iter();
    let above = named.filter(|(name, _)| name != room && !below.contains(&name.as_str()));
    above.map(|(name, line)| (line, format!("`{room}` names `{name}`"))).collect()
}

fn crates_elsewhere(path: &str, row: &[&Token]) -> Vec<(usize, String)> {
    let elsewhere = CRATES.iter().filter(|(_, places)| !places.iter().any(|place| path.starts_with(place)));
    let prefixes: Vec<&str> = elsewhere.flat_map(|(prefixes, _)| *prefixes).copied().collect();
    let named = row.iter().filter(|token| prefixes.iter().any(|prefix| token.text.starts_with(prefix)));
    named.map(|token| (token.line, format!("names the crate `{}`", token.text))).collect()
}

fn keys_elsewhere(path: &str, row: &[&Token]) -> Vec<(usize, String)> {
    if path == LAYOUT {
        return Vec::new();
    }
    let begins_a_key = |token: &Token| {
        let literal = token.text.split_once('"');
        literal.is_some_and(|(_, text)| KEYS.iter().any(|key| text.starts_with(key)))
    };
    let keys = row.iter().filter(|token| begins_a_key(token));
    keys.map(|token| (token.line, format!("builds a key: {}", token.text))).collect()
}

/// Where the program would stop, unless a reason is given or the compiler is who finds out.
fn panics(row: &[Token]) -> Vec<(usize, String)> {
    let excused = ["clippy::unwrap_used", "clippy::expect_used", "clippy::panic"];
    let is_out = |attribute: &str| {
        attribute == "cfg(test)"
            || attribute.starts_with("expect(") && excused.iter().any(|lint| attribute.contains(lint))
    };
    let shipped = without(row, is_out);
    let mut found = Vec::new();
    let mut in_constant = false;
    for (at, token) in shipped.iter().enumerate() {
        let is = |offset: usize, text: &str| shipped.get(at + offset).is_some_and(|token| token.text == text);
        let before = at.checked_sub(1).map_or(";", |before| shipped[before].text.as_str());
        match token.text.as_str() {
            // An item; not a parameter, nor a function.
            "const" if matches!(before, ";" | "{" | "}" | ")" | "pub") && is(2, ":") => in_constant = true,
            ";" => in_constant = false,
            "unwrap" | "expect" if before == "." && is(1, "(") && !in_constant => {
                found.push((token.line, format!("calls `{}`", token.text)));
            }
            "panic" | "todo" | "unimplemented" | "unreachable" if is(1, "!") && !in_constant => {
                found.push((token.line, format!("calls `{}!`", token.text)));
            }
            _ => {}
        }
    }
    found
}

fn too_long(text: &str) -> Option<(usize, String)> {
    let shipped = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(text);
    let lines = shipped.lines().count();
    (lines > LINES).then(|| (lines, format!("has more than {LINES} lines")))
}

/// What is found in a sample, without the places.
fn found(path: &str, text: &str) -> Vec<String> {
    let place = |line: String| line.splitn(3, ':').last().unwrap().trim().to_owned();
    violations(path, text).into_iter().map(place).collect()
}

#[test]
fn an_arrow_that_points_up_is_found_however_it_is_written() {
    let up = ["`registry` names `http`"];
    for text in [
        "use crate::http;",
        "use crate::http::Route;",
        "use crate::{oci::{Digest as D, Tag}, http::{Route, error}};",
        "use crate::{\n    oci::Digest,\n    http,\n};",
        "use super::super::http::Route;",
        "use super::{super::{http::Route, oci}, tag};",
        "fn f() { crate::http::f(); }",
        "fn f() -> Vec<crate::http::Route> { Vec::new() }",
        "mod inner { use super::super::super::http; }",
        "mod inner {} use super::super::http;",
        "pub(in crate::http) fn f() {}",
    ] {
        assert_eq!(found("src/registry/tag.rs", text), up, "{text}");
    }
    assert_eq!(found("src/registry/mod.rs", "use super::http;"), up);
    assert_eq!(found("src/registry/upload/mod.rs", "use super::super::http;"), up);
    assert_eq!(found("src/registry/upload/journal.rs", "use super::super::super::http;"), up);
    assert_eq!(found("src/oci/name.rs", "use crate::store::Key;"), ["`oci` names `store`"]);
    assert_eq!(found("src/store/fs.rs", "use crate::oci::Digest;"), ["`store` names `oci`"]);
    assert_eq!(found("src/http/mod.rs", "use crate::server;"), ["`http` names `server`"]);
}

#[test]
fn what_points_down_or_inside_or_is_no_code_is_not_found() {
    for text in [
        "use crate::{oci::{Digest, http}, registry::http, store as http};",
        "use super::http;",
        "use super::{super::registry::tag, register::http};",
        "mod inner { use super::super::http; }",
        "//! use crate::http;\n/// [`crate::http`]\n// crate::http\nfn f() -> &'static str { \"crate::http\" }",
        "#[cfg(test)]\nuse crate::http;\n#[cfg(test)]\nmod tests { use crate::http; fn f() { None.unwrap() } }",
    ] {
        assert_eq!(found("src/registry/tag.rs", text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(found("src/main.rs", "use crate::http; use axum::Router;"), Vec::<String>::new());
}

#[test]
fn a_crate_outside_its_place_is_found() {
    let axum = "use axum::http::StatusCode;";
    assert_eq!(found("src/registry/error.rs", axum), ["names the crate `axum`"]);
    assert_eq!(found("src/config.rs", "type R = Result<hyper::Error, ()>;"), ["names the crate `hyper`"]);
    assert_eq!(found("src/store/fs.rs", "use aws_sdk_s3::Client;"), ["names the crate `aws_sdk_s3`"]);
    for (path, text) in [
        ("src/http/error.rs", axum),
        ("src/server.rs", axum),
        ("src/server/body.rs", axum),
        ("src/store/s3.rs", "use aws_sdk_s3::Client;"),
        ("src/store/s3/list.rs", "use aws_sdk_s3::Client;"),
    ] {
        assert_eq!(found(path, text), Vec::<String>::new(), "{path}");
    }
}

#[test]
fn a_key_built_outside_the_layout_is_found() {
    let text = r#"fn f() { format!("blobs/{}", 1); g("x/blobs/y", "blobs", br"uploads/"); }"#;
    let expected = [r#"builds a key: "blobs/{}""#, r#"builds a key: br"uploads/""#];
    assert_eq!(found("src/registry/blob.rs", text), expected);
    assert_eq!(found(LAYOUT, text), Vec::<String>::new());
}

#[test]
fn a_panic_without_a_reason_is_found() {
    let calls = "fn f() { g().unwrap(); g().expect(\"x\"); panic!(); unreachable!() }";
    let expected = ["calls `unwrap`", "calls `expect`", "calls `panic!`", "calls `unreachable!`"];
    assert_eq!(found("src/registry/blob.rs", calls), expected);
    assert_eq!(found("src/registry/blob.rs", "fn f<const N: usize>() { g().unwrap() }"), ["calls `unwrap`"]);
    assert_eq!(found("src/registry/blob.rs", "const A: B = c(); fn f() { g().unwrap() }"), ["calls `unwrap`"]);
    let one = "#[expect(clippy::expect_used, reason = \"r\")] fn f() { g().expect(\"x\"); } fn h() { i().unwrap(); }";
    assert_eq!(found("src/registry/blob.rs", one), ["calls `unwrap`"]);
    let other = "#[expect(clippy::cast_lossless, reason = \"r\")] fn f() { g().unwrap(); }";
    assert_eq!(found("src/registry/blob.rs", other), ["calls `unwrap`"]);
    for text in ["pub const A: B = b(1).unwrap();", "fn f() { g().unwrap_or_default(); std::panic::resume_unwind(p) }"]
    {
        assert_eq!(found("src/registry/blob.rs", text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_file_that_is_too_long_is_found() {
    let lines = |count: usize| "// x\n".repeat(count);
    assert_eq!(found("src/registry/blob.rs", &lines(LINES + 1)), ["has more than 400 lines"]);
    let tested = lines(LINES) + "#[cfg(test)]\nmod tests {\n" + &lines(LINES) + "}\n";
    assert_eq!(found("src/registry/blob.rs", &tested), Vec::<String>::new());
}

#[test]
fn modules_for_tests_only_are_left_out() {
    let declared = "mod a;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\npub(crate) mod contract;\n";
    for (path, expected) in [
        ("src/store/mod.rs", ["src/store/tests", "src/store/contract"]),
        ("src/store/fs.rs", ["src/store/fs/tests", "src/store/fs/contract"]),
    ] {
        assert_eq!(modules_of_tests(path, declared), expected);
    }
    assert!(is_in("src/store/tests.rs", "src/store/tests") && is_in("src/store/tests/a.rs", "src/store/tests"));
    assert!(!is_in("src/store/testsuite.rs", "src/store/tests"));
}
