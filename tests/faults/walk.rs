//! What must hold of what is stored, whoever died or stalled: the invariants of the registry, and that no garbage is there
//! without a queue that names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use marina_distribution::{
    registry::check::check,
    store::{Store, memory::MemoryStore},
};
use serde_json::Value;

/// All objects, by key.
pub(crate) type Objects = BTreeMap<String, Bytes>;

pub(crate) async fn objects(store: &MemoryStore) -> Objects {
    let mut objects = Objects::new();
    for entry in store.list("", None, usize::MAX).await.unwrap() {
        objects.insert(entry.key.to_string(), store.read(&entry.key).await.unwrap().unwrap().bytes);
    }
    objects
}

pub(crate) async fn findings(store: &Arc<MemoryStore>, objects: &Objects) -> Vec<String> {
    let mut findings = Vec::new();
    let note = |finding: &_| findings.push(format!("{finding:?}"));
    check(store.clone(), note).await.unwrap();
    let names = names(objects);
    let is_garbage = |key: &&String| key.starts_with("data/") && !names.contains(*key);
    findings.extend(objects.keys().filter(is_garbage).map(|key| format!("nothing names the bytes at {key}")));
    let uploads = store.uploads_with_parts();
    let is_garbage = |upload: &&String| !names.contains(*upload);
    findings.extend(uploads.iter().filter(is_garbage).map(|upload| format!("nothing names the parts of {upload}")));
    findings
}

/// Every data key and upload that a record or a queue names.
fn names(objects: &Objects) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (key, bytes) in objects {
        let mut lines = bytes.split(|&b| b == b'\n');
        let json = match key.split('/').next().unwrap() {
            // A register: its value is on the second line.
            "blobs" => lines.nth(1),
            "pending" | "dropped" | "gc" => Some(bytes.as_ref()),
            "uploads" if !key.ends_with("/!end") => lines.next(),
            _ => None,
        };
        if let Some(json) = json {
            names.extend(strings(&serde_json::from_slice(json).unwrap()).map(str::to_owned));
        }
    }
    names
}

/// All strings in a JSON value.
fn strings(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(items) => Box::new(items.iter().flat_map(strings)),
        Value::Object(fields) => Box::new(fields.values().flat_map(strings)),
        _ => Box::new(std::iter::empty()),
    }
}
