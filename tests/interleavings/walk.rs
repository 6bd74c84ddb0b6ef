//! I1 to I4 on the raw store, after every step. Knows the keys and letters of the store by itself, and nothing of the code.

use std::collections::BTreeMap;

use bytes::Bytes;
use marina_distribution::store::{Store, memory::MemoryStore};
use serde_json::Value;

/// All objects, as they are.
pub(crate) struct Walk(BTreeMap<String, Bytes>);

/// The length of a register's letter and nonce.
const HEAD: usize = 23;

impl Walk {
    pub(crate) async fn of(store: &MemoryStore) -> Self {
        let mut objects = BTreeMap::new();
        for entry in store.list("", None, usize::MAX).await.unwrap() {
            let found = store.read(&entry.key).await.unwrap().unwrap();
            objects.insert(entry.key.to_string(), found.bytes);
        }
        Self(objects)
    }

    fn letter(&self, key: &str) -> Option<u8> {
        self.0.get(key).and_then(|bytes| bytes.first()).copied()
    }

    pub(crate) fn is_live(&self, key: &str) -> bool {
        self.letter(key) == Some(b'l')
    }

    pub(crate) fn is_present(&self, key: &str) -> bool {
        matches!(self.letter(key), Some(b'l' | b'c'))
    }

    /// There, or gone because a client said so.
    fn is_kept(&self, key: &str) -> bool {
        self.is_present(key) || self.letter(key) == Some(b'd')
    }

    /// What a register says after its first line, if it is present.
    fn value(&self, key: &str) -> Option<&[u8]> {
        if self.is_present(key) { self.0.get(key).and_then(|bytes| bytes.get(HEAD + 1..)) } else { None }
    }

    pub(crate) fn json(&self, key: &str) -> Option<Value> {
        self.value(key).map(|bytes| serde_json::from_slice(bytes).unwrap())
    }

    /// The first invariant that does not hold.
    pub(crate) fn broken(&self) -> Option<String> {
        self.0.keys().filter(|key| self.is_present(key)).find_map(|key| {
            let segments: Vec<_> = key.split('/').collect();
            match *segments.as_slice() {
                ["repos", repo, "_manifests", ..] => self.broken_manifest(key, repo),
                ["blobs", .., "_"] => self.broken_record(key),
                ["blobs", algorithm, shard, hex, _] => {
                    let record = format!("blobs/{algorithm}/{shard}/{hex}/_");
                    let agrees = self.json(key) == self.json(&record);
                    (!agrees)
                        .then(|| format!("I2 {key} says {:?}, its record {:?}", self.json(key), self.json(&record)))
                }
                ["repos", repo, "_tags", _] => {
                    let manifest = manifest(repo, self.json(key)?["digest"].as_str()?);
                    (!self.is_present(&manifest)).then(|| format!("I3 {key} points to what is not there"))
                }
                ["repos", repo, "_referrers", _, _, leaf] => {
                    let manifest = manifest(repo, &leaf.replacen('-', ":", 1));
                    (!self.is_present(&manifest)).then(|| format!("I4 {key} lists what is not there"))
                }
                _ => None,
            }
        })
    }

    fn broken_manifest(&self, key: &str, repo: &str) -> Option<String> {
        let mut parts = self.value(key)?.splitn(3, |byte| *byte == b'\n');
        let said: Value = serde_json::from_slice(parts.nth(1)?).unwrap();
        let body: Value = serde_json::from_slice(parts.next()?).unwrap();
        let each = |name: &str| body[name].as_array().cloned().unwrap_or_default();
        let blobs = [body["config"].clone()].into_iter().chain(each("layers")).map(|of| (of, true));
        let all = blobs.chain(each("manifests").into_iter().map(|of| (of, false)));
        let unchecked = said["unchecked"].as_array().cloned().unwrap_or_default();
        all.filter(|(of, _)| !unchecked.contains(&of["digest"])).find_map(|(of, is_blob)| {
            let digest = of["digest"].as_str()?;
            let needed = if is_blob { holder(digest, repo) } else { manifest(repo, digest) };
            (!self.is_kept(&needed)).then(|| format!("I1 {key} needs {needed}"))
        })
    }

    fn broken_record(&self, key: &str) -> Option<String> {
        let record = self.json(key)?;
        let bytes = self.0.get(record["data"].as_str()?);
        let is_there = bytes.is_some_and(|bytes| Some(bytes.len() as u64) == record["size"].as_u64());
        (!is_there).then(|| format!("I2 {key} {record} without bytes"))
    }
}

/// Names of one segment are the same on one level.
pub(crate) fn holder(digest: &str, repo: &str) -> String {
    format!("{}{repo}", holders(digest))
}

pub(crate) fn holders(digest: &str) -> String {
    let hex = digest.trim_start_matches("sha256:");
    format!("blobs/sha256/{}/{hex}/", &hex[..2])
}

pub(crate) fn manifest(repo: &str, digest: &str) -> String {
    format!("repos/{repo}/_manifests/{}", digest.replacen(':', "/", 1))
}

pub(crate) fn tag(repo: &str, tag: &str) -> String {
    format!("repos/{repo}/_tags/{tag}")
}
