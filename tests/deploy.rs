//! What is written for operators, held against the code it is about.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The operations of S3 that our account may be asked for, and the action that each one needs.
const ACTIONS: [(&str, &str); 11] = [
    ("abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("complete_multipart_upload", "s3:PutObject"),
    ("create_multipart_upload", "s3:PutObject"),
    ("delete_object", "s3:DeleteObject"),
    ("get_bucket_lifecycle_configuration", "s3:GetLifecycleConfiguration"),
    ("get_object", "s3:GetObject"),
    ("head_object", "s3:GetObject"),
    ("list_objects_v2", "s3:ListBucket"),
    ("put_bucket_lifecycle_configuration", "s3:PutLifecycleConfiguration"),
    ("put_object", "s3:PutObject"),
    ("upload_part", "s3:PutObject"),
];

/// What the client is asked for and no bucket hears of.
const LOCAL: &str = "config";

/// What only the doctor calls. Its account may be another, and the registry goes on without.
const DOCTORS: [&str; 2] = ["s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"];

#[test]
fn the_iam_policy_allows_exactly_the_operations_that_the_driver_calls() {
    let called = operations();
    let is_unknown = |called: &&String| *called != LOCAL && ACTIONS.iter().all(|(known, _)| known != called);
    let unknown: Vec<_> = called.iter().filter(is_unknown).collect();
    assert!(unknown.is_empty(), "which action do they need? {unknown:?}");
    assert!(called.len() >= 9, "the driver's calls are not found any more: {called:?}");
    let needed = ACTIONS.iter().filter(|(operation, _)| called.contains(*operation)).map(|(_, action)| *action);
    let needed: BTreeSet<_> = needed.filter(|action| !DOCTORS.contains(action)).collect();
    let policy = policy();
    let allowed: BTreeSet<_> = policy.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(allowed, needed);
}

#[test]
fn the_guide_names_the_rights_that_only_the_doctor_needs() {
    let guide = fs::read_to_string(Path::new(ROOT).join("docs/deploy.md")).unwrap();
    let missing: Vec<_> = DOCTORS.iter().filter(|action| !guide.contains(&format!("`{action}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_iam_policy_names_one_bucket_and_no_wildcard_but_for_its_objects() {
    for (action, resource) in policy() {
        assert!(!action.contains('*'), "{action}");
        let bucket = "arn:aws:s3:::example-bucket";
        let expected = if action == "s3:ListBucket" { bucket.to_owned() } else { format!("{bucket}/*") };
        assert_eq!(resource, expected, "{action}");
    }
}

/// What differs between a container and a process of a test stands behind a `=`, or is a path or an address.
#[test]
fn the_stores_of_compose_are_started_as_ci_starts_them() {
    let compose = fs::read_to_string(Path::new(ROOT).join("docker-compose.yml")).unwrap();
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let script = read("tests/s3.sh") + &read(".ci/lib.sh");
    let words: BTreeSet<&str> = script.split_whitespace().collect();
    for program in ["weed mini", "minio server"] {
        assert!(script.contains(program), "{program} is not run");
    }
    let commands: Vec<&str> =
        compose.lines().filter(|line| line.contains("\"mini\"") || line.contains("minio server")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let flags = commands.iter().flat_map(|line| line.split([' ', '"', ','])).filter(|word| word.starts_with('-'));
    let unused: Vec<_> = flags
        .filter(|flag| !matches!(*flag, "-c" | "-p"))
        .filter(|flag| match flag.split_once('=') {
            Some((_, "true" | "false")) | None => !words.contains(flag),
            Some((name, _)) => !words.iter().any(|word| word.starts_with(&format!("{name}="))),
        })
        .collect();
    assert!(unused.is_empty(), "CI starts no store with {unused:?}");
}

/// What is allowed on what.
fn policy() -> Vec<(String, String)> {
    let policy = fs::read_to_string(Path::new(ROOT).join("deploy/iam-policy.json")).unwrap();
    let policy: Value = serde_json::from_str(&policy).unwrap();
    let mut allowed = Vec::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        let actions = match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        };
        let resource = statement["Resource"].as_str().unwrap();
        allowed.extend(actions.iter().map(|action| (action.as_str().unwrap().to_owned(), resource.to_owned())));
    }
    allowed
}

/// What the sources of the driver call on a client of the SDK: `client.get_object()`.
fn operations() -> BTreeSet<String> {
    let mut operations = BTreeSet::new();
    for file in driver() {
        let text: String = fs::read_to_string(file).unwrap().split_whitespace().collect();
        for client in ["client.", "public."] {
            for rest in text.split(client).skip(1) {
                let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                // `client.clone()` is no operation, `client: client.clone` no call.
                let is_call = rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with("()"));
                if is_call && name != "clone" {
                    operations.insert(name);
                }
            }
        }
    }
    operations
}

/// The files of the driver, without its tests.
fn driver() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("src/store");
    let parts = fs::read_dir(folder.join("s3")).unwrap().map(|entry| entry.unwrap().path());
    let parts = parts.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    parts
        .filter(|path| !path.ends_with("tests.rs") && !path.ends_with("testing.rs"))
        .chain([folder.join("s3.rs")])
        .collect()
}
