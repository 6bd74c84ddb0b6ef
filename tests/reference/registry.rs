//! A registry as simple as one can be: maps in memory, one request at a time, every answer in full.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    answer::Answer,
    ask::{Ask, Condition, Name, Page, Target, Unless},
    content::{BLOBS, INDEX, REPOSITORIES, SAMPLES, Sample, TAGS, escaped},
    download,
    session::{Session, standing},
};

#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) repositories: BTreeMap<&'static str, Repository>,
    pub(crate) sessions: Vec<Session>,
}

#[derive(Debug, Default)]
pub(crate) struct Repository {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// By digest, which of the samples each is.
    manifests: BTreeMap<String, usize>,
    /// The digest that each points to.
    tags: BTreeMap<&'static str, String>,
    /// It had a manifest once: so it is in the catalog.
    is_listed: bool,
}

pub(crate) const FOREVER: &str = "max-age=31536000, immutable";

impl Reference {
    pub(crate) fn answer(&mut self, ask: &Ask) -> Answer {
        let answer = match ask {
            Ask::Append { session, chunk } => self.append(*session, *chunk),
            Ask::Stands { session, .. } => self.sessions[*session].stands(),
            Ask::Close { session, digest, chunk } => self.close(*session, *digest, *chunk),
            Ask::Cancel { session } => self.sessions[*session].cancel(),
            Ask::Catalog { page } => self.catalog(page),
            _ => self.of_repository(ask),
        };
        if ask.is_head() { answer.head() } else { answer }
    }

    fn of_repository(&mut self, ask: &Ask) -> Answer {
        let (Ask::Start { repository, .. }
        | Ask::Blob { repository, .. }
        | Ask::DeleteBlob { repository, .. }
        | Ask::Push { repository, .. }
        | Ask::Manifest { repository, .. }
        | Ask::Delete { repository, .. }
        | Ask::Tags { repository, .. }
        | Ask::Referrers { repository, .. }) = ask
        else {
            unreachable!("{ask:?} names no repository");
        };
        let name = REPOSITORIES[*repository];
        if *repository == REPOSITORIES.len() - 1 {
            return Answer::refusal(400, "NAME_INVALID");
        }
        if let Ask::Start { mount, whole, hint, .. } = ask {
            return self.start(name, *mount, *whole, *hint);
        }
        let there = self.repositories.entry(name).or_default();
        match ask {
            Ask::Blob { digest, head, range, unless, if_range, .. } => match there.blob(*digest) {
                Ok(bytes) => download::blob(&digest.text(), bytes, *head, range.as_deref(), *unless, *if_range),
                Err(refusal) => refusal,
            },
            Ask::DeleteBlob { digest, .. } => match there.blob(*digest) {
                Ok(_) => {
                    there.blobs.remove(&digest.text());
                    Answer::new(202).measured()
                }
                Err(refusal) => refusal,
            },
            Ask::Push { manifest, target, tags, condition, .. } => {
                there.push(name, *manifest, *target, tags, *condition)
            }
            Ask::Manifest { target, unless, .. } => there.manifest(*target, *unless),
            Ask::Delete { target, .. } => there.delete(*target),
            Ask::Tags { page, .. } => there.list_tags(name, page),
            Ask::Referrers { subject, types, page, .. } => there.referrers(name, *subject, types, page),
            _ => unreachable!("{ask:?}"),
        }
    }

    fn start(
        &mut self,
        name: &'static str,
        mount: Option<(Name, Option<usize>)>,
        whole: Option<(Name, usize)>,
        hint: Option<&str>,
    ) -> Answer {
        if let Some((Name::Blob(blob) | Name::Long(blob), from)) = mount {
            let digest = mount.unwrap().0.text();
            let has = |name: &str| self.repositories.get(name).is_some_and(|it| it.blobs.contains_key(&digest));
            let may_be_mounted = match from {
                Some(from) if from == REPOSITORIES.len() - 1 => false,
                Some(from) => has(REPOSITORIES[from]) || has(name),
                None => REPOSITORIES.iter().any(|name| has(name)),
            };
            if may_be_mounted {
                return self.store(name, &digest, BLOBS[blob].into());
            }
        }
        let mut is_long = match hint {
            Some("sha512") => true,
            None | Some("sha256") => false,
            Some(_) => return Answer::refusal(400, "DIGEST_INVALID"),
        };
        if let Some((digest, blob)) = whole {
            if matches!(digest, Name::Malformed | Name::Unsupported) {
                return Answer::refusal(400, "DIGEST_INVALID");
            }
            let bytes = BLOBS[blob];
            if [Name::Blob(blob), Name::Long(blob)].iter().any(|name| name.text() == digest.text()) {
                return self.store(name, &digest.text(), bytes.into());
            }
            if !bytes.is_empty() {
                return Answer::refusal(400, "DIGEST_INVALID");
            }
            is_long = matches!(digest, Name::Long(_));
        }
        self.sessions.push(Session::new(name, is_long));
        standing(Answer::new(202).measured(), name, "{id}", 0)
    }

    /// 201: the repository has the blob.
    pub(crate) fn store(&mut self, name: &'static str, digest: &str, bytes: Vec<u8>) -> Answer {
        self.repositories.entry(name).or_default().blobs.insert(digest.to_owned(), bytes);
        let location = format!("/v2/{name}/blobs/{digest}");
        Answer::new(201).with("location", location).with("docker-content-digest", digest).measured()
    }

    /// What is there, if it is the place of a blob.
    pub(crate) fn bytes_at(&self, url: &str) -> Option<&[u8]> {
        let (name, digest) = url.strip_prefix("/v2/")?.split_once("/blobs/")?;
        self.repositories.get(name)?.blobs.get(digest).map(Vec::as_slice)
    }

    fn catalog(&self, page: &Page) -> Answer {
        let listed = self.repositories.iter().filter(|(_, it)| it.is_listed).map(|(name, _)| *name);
        match cut(listed, page) {
            Ok((names, link)) => listing(&json!({ "repositories": names }), "/v2/_catalog", link.as_deref()),
            Err(refusal) => refusal,
        }
    }
}

impl Repository {
    fn blob(&self, digest: Name) -> Result<&[u8], Answer> {
        let unknown = || Answer::refusal(404, "BLOB_UNKNOWN");
        match digest {
            Name::Malformed => Err(Answer::refusal(400, "DIGEST_INVALID")),
            Name::Unsupported => Err(unknown()),
            digest => self.blobs.get(&digest.text()).map(Vec::as_slice).ok_or_else(|| {
                let mut unknown = unknown();
                unknown.errors[0].1 = Some(digest.text());
                unknown
            }),
        }
    }

    fn push(
        &mut self,
        name: &str,
        index: usize,
        target: Target,
        tags: &[usize],
        condition: Option<Condition>,
    ) -> Answer {
        let invalid = || Answer::refusal(400, "MANIFEST_INVALID");
        let sample = &SAMPLES[index];
        let digest = Name::Manifest(index).text();
        match target {
            Target::Tag(3) | Target::Digest(Name::Malformed | Name::Unsupported) => {
                return Answer::refusal(400, "DIGEST_INVALID");
            }
            Target::Tag(_)
                if matches!(
                    condition,
                    Some(Condition::Malformed | Condition::Is(Name::Malformed | Name::Unsupported))
                ) =>
            {
                return Answer::refusal(400, "UNSUPPORTED");
            }
            Target::Digest(_) if condition.is_some() => return Answer::refusal(400, "UNSUPPORTED"),
            Target::Digest(_) if tags.contains(&3) => return invalid(),
            _ if !sample.is_valid => return invalid(),
            Target::Digest(target) if target.text() != digest => return Answer::refusal(400, "DIGEST_INVALID"),
            _ => {}
        }
        if self.manifests.get(&digest).is_some_and(|known| SAMPLES[*known].media_type != sample.media_type) {
            return invalid();
        }
        let set: Vec<&str> = match target {
            Target::Tag(tag) => vec![TAGS[tag]],
            Target::Digest(_) => tags.iter().map(|tag| TAGS[*tag]).collect(),
        };
        if let (Target::Tag(tag), Some(condition)) = (target, condition) {
            let is = self.tags.get(TAGS[tag]);
            let holds = match condition {
                Condition::Absent => is.is_none(),
                Condition::Is(name) => is.is_some_and(|is| *is == name.text()),
                Condition::Malformed => false,
            };
            if !holds {
                return Answer::refusal(412, "DENIED");
            }
        }
        if let Err(refusal) = self.has_all_of(sample) {
            return refusal;
        }
        self.manifests.insert(digest.clone(), index);
        self.is_listed = true;
        self.tags.extend(set.iter().map(|tag| (*tag, digest.clone())));
        let location = format!("/v2/{name}/manifests/{digest}");
        let mut answer = Answer::new(201).with("location", location).with("docker-content-digest", &digest).measured();
        for tag in set.iter().filter(|_| matches!(target, Target::Digest(_))) {
            answer = answer.with("oci-tag", tag);
        }
        sample.subject.iter().fold(answer, |answer, subject| answer.with("oci-subject", subject))
    }

    fn has_all_of(&self, sample: &Sample) -> Result<(), Answer> {
        let blobs = sample.blobs.iter().map(|(it, size)| (it, *size, self.blobs.get(it).map(Vec::len)));
        let size_of = |digest: &String| self.manifests.get(digest).map(|index| SAMPLES[*index].text.len());
        let children = sample.children.iter().map(|(it, size)| (it, *size, size_of(it)));
        let needed: Vec<_> = blobs.chain(children).collect();
        if needed.iter().any(|(_, claimed, is)| is.is_some_and(|is| is != *claimed)) {
            return Err(Answer::refusal(400, "MANIFEST_INVALID"));
        }
        let missing: BTreeSet<_> = needed.into_iter().filter(|(_, _, is)| is.is_none()).map(|(it, ..)| it).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut refusal = Answer::refusal(400, "MANIFEST_BLOB_UNKNOWN");
        refusal.errors = missing.into_iter().map(|it| ("MANIFEST_BLOB_UNKNOWN".to_owned(), Some(it.clone()))).collect();
        Err(refusal)
    }

    fn digest(&self, target: Target) -> Option<String> {
        let digest = match target {
            Target::Tag(tag) => self.tags.get(TAGS[tag]).cloned(),
            Target::Digest(digest) => Some(digest.text()),
        };
        digest.filter(|digest| self.manifests.contains_key(digest))
    }

    fn manifest(&self, target: Target, unless: Option<Unless>) -> Answer {
        let Some(digest) = self.digest(target) else { return Answer::refusal(404, "MANIFEST_UNKNOWN") };
        let sample = &SAMPLES[self.manifests[&digest]];
        let is_modified = !download::is_known(&digest, unless);
        let answer = Answer::new(if is_modified { 200 } else { 304 })
            .with("content-type", sample.media_type)
            .with("content-length", sample.text.len())
            .with("docker-content-digest", &digest)
            .with("etag", format!("\"{digest}\""))
            .with("cache-control", if matches!(target, Target::Tag(_)) { "no-cache" } else { FOREVER });
        Answer { body: if is_modified { sample.text.clone().into() } else { Vec::new() }, ..answer }
    }

    fn delete(&mut self, target: Target) -> Answer {
        let Some(digest) = self.digest(target) else { return Answer::refusal(404, "MANIFEST_UNKNOWN") };
        match target {
            Target::Tag(tag) => drop(self.tags.remove(TAGS[tag])),
            Target::Digest(_) => {
                self.manifests.remove(&digest);
                self.tags.retain(|_, it| *it != digest);
            }
        }
        Answer::new(202).measured()
    }

    fn list_tags(&self, name: &str, page: &Page) -> Answer {
        match cut(self.tags.keys().copied(), page) {
            Err(refusal) => refusal,
            Ok((tags, _)) if tags.is_empty() && !self.is_listed => Answer::refusal(404, "NAME_UNKNOWN"),
            Ok((tags, link)) => {
                listing(&json!({ "name": name, "tags": tags }), &format!("/v2/{name}/tags/list"), link.as_deref())
            }
        }
    }

    fn referrers(&self, name: &str, subject: Name, types: &[&str], page: &Page) -> Answer {
        let subject_text = subject.text();
        let found = self.manifests.iter().filter(|(_, index)| {
            let sample = &SAMPLES[**index];
            let is_asked_for = types.is_empty() || sample.artifact_type.is_some_and(|it| types.contains(&it));
            sample.subject.as_ref() == Some(&subject_text) && is_asked_for
        });
        // What is no digest is not known to come after anything.
        let last = page.last.clone().filter(|last| last.len() == SHA256);
        let (digests, link) = match cut(found.map(|(digest, _)| digest.as_str()), &Page { last, ..page.clone() }) {
            Err(refusal) => return refusal,
            Ok(_) if matches!(subject, Name::Malformed) => return Answer::refusal(400, "DIGEST_INVALID"),
            Ok(page) => page,
        };
        let manifests: Vec<_> = digests.iter().map(|it| describe(it, &SAMPLES[self.manifests[*it]])).collect();
        let body = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let filters: Vec<_> = types.iter().map(|it| format!("artifactType={}&", escaped(it))).collect();
        let filters = filters.concat();
        let link = link.map(|link| format!("{filters}{link}"));
        let mut answer = listing(&body, &format!("/v2/{name}/referrers/{subject_text}"), link.as_deref());
        answer.headers.retain(|(name, _)| name != "content-type");
        let answer = answer.with("content-type", INDEX);
        if types.is_empty() { answer } else { answer.with("oci-filters-applied", "artifactType") }
    }
}

/// The length of the text of such a digest.
const SHA256: usize = 71;

fn describe(digest: &str, sample: &Sample) -> Value {
    let mut descriptor = json!({ "mediaType": sample.media_type, "digest": digest, "size": sample.text.len() });
    if let Some(artifact_type) = sample.artifact_type {
        descriptor["artifactType"] = json!(artifact_type);
    }
    if !sample.annotations.is_null() {
        descriptor["annotations"] = sample.annotations.clone();
    }
    descriptor
}

/// A page of a sorted list, and the query of the next one.
fn cut<'a>(list: impl Iterator<Item = &'a str>, page: &Page) -> Result<(Vec<&'a str>, Option<String>), Answer> {
    let n = match page.n {
        None | Some("") => None,
        Some(n) if n.starts_with('-') => return Err(Answer::refusal(400, "UNSUPPORTED")),
        Some(n) => Some(n.parse().unwrap_or(usize::MAX)),
    };
    let after = list.filter(|it| page.last.as_ref().is_none_or(|last| *it > last.as_str()));
    let mut found: Vec<_> = after.collect();
    let more = found.len() > n.unwrap_or(usize::MAX);
    found.truncate(n.unwrap_or(usize::MAX));
    let link = found.last().filter(|_| more).map(|last| format!("n={}&last={}", n.unwrap_or_default(), escaped(last)));
    Ok((found, link))
}

fn listing(body: &Value, path: &str, link: Option<&str>) -> Answer {
    let answer = Answer::new(200).with("content-type", "application/json").sending(body.to_string());
    link.iter().fold(answer, |answer, query| answer.with("link", format!("<{path}?{query}>; rel=\"next\"")))
}
