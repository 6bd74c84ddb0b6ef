//! The registry as one would wish it: a few sets and maps, and each request a few atomic steps upon them.

use super::{
    checker::{Step, Way},
    content::{CHUNKS, MANIFESTS, Need, REFERRER, TAGS, needs},
    request::{Answer, Condition, REPOSITORIES, Request},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct State {
    manifests: [bool; MANIFESTS],
    /// The referrer is listed under its subject.
    entry: bool,
    tags: [Option<usize>; TAGS.len()],
    /// A tag was set by a push that another one overtook: they are one step, and this is between them.
    overtaken: Option<usize>,
    held: [[bool; 5]; REPOSITORIES],
    /// A client deleted it, and nobody brought it back.
    given_up: [[bool; 5]; REPOSITORIES],
    catalog: bool,
    session: Session,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Session {
    /// The blob that its bytes are, if there are any.
    content: Option<usize>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum End {
    #[default]
    Open,
    Finished(usize),
    Cancelled,
}

impl State {
    pub(crate) fn is_settled(&self) -> bool {
        self.overtaken.is_none()
    }

    /// What requests that were answered one after the other leave behind.
    pub(crate) fn prepare(&mut self, request: Request) {
        match request {
            Request::Upload { repository, blob } => self.held[repository][blob] = true,
            Request::Push { manifest, tag, .. } => {
                self.manifests[manifest] = true;
                self.entry |= manifest == REFERRER;
                self.tags[tag] = Some(manifest);
                self.catalog = true;
            }
            request => panic!("{request:?} prepares nothing"),
        }
    }

    fn has(&self, need: Need) -> bool {
        match need {
            Need::Blob(blob) => self.held[0][blob],
            Need::Manifest(manifest) => self.manifests[manifest],
        }
    }

    fn received(&self) -> u64 {
        let content = self.session.content.and_then(|blob| CHUNKS.iter().find(|chunk| chunk.2 == blob));
        content.map_or(0, |(start, bytes, _)| start + bytes.len() as u64)
    }

    fn is_open(&self) -> bool {
        self.session.end == End::Open
    }

    /// It is open, or was finished and what that published was never held: then it can be finished again.
    fn goes_on(&self) -> bool {
        match self.session.end {
            End::Open => true,
            End::Finished(blob) => !self.held[0][blob] && !self.given_up[0][blob],
            End::Cancelled => false,
        }
    }

    /// What can be finished as this: all that was accepted, or what a replica remembers of it.
    fn can_be_finished_as(&self, blob: usize) -> bool {
        match self.session.end {
            End::Open => self.session.content.is_some_and(|content| content == blob || blob == CHUNKS[0].2),
            End::Finished(as_what) => as_what == blob,
            End::Cancelled => false,
        }
    }
}

type Steps = Way<State>;

fn look(holds: impl Fn(&State) -> bool + 'static) -> Step<State> {
    Step::look(move |state: &State| state.is_settled() && holds(state))
}

/// Does something to a state in which it can be done.
fn act(holds: impl Fn(&State) -> bool + 'static, change: impl Fn(&mut State) + 'static) -> Step<State> {
    Step::act(move |state: &State| {
        let mut next = state.clone();
        change(&mut next);
        (state.is_settled() && holds(state)).then_some(next)
    })
}

/// The ways in which a request may have come to its answer. An answer that it never has is a failure of its own.
pub(crate) fn ways(request: Request, answer: &Answer) -> Result<Vec<Steps>, String> {
    use Request::*;
    let one = |steps: Steps| Ok(vec![steps]);
    match (request, answer) {
        (Push { manifest, tag, condition }, _) => push(manifest, &[tag], condition, answer),
        (PushByDigest { manifest, tags }, _) => {
            let tags: Vec<usize> = (0..TAGS.len()).filter(|tag| tags & (1 << tag) != 0).collect();
            push(manifest, &tags, None, answer)
        }
        (DeleteManifest(manifest), Answer::Done | Answer::Unclear) => {
            one(maybe_all(delete(manifest), *answer == Answer::Unclear))
        }
        (DeleteManifest(manifest) | Pull(manifest), Answer::Absent) => {
            one(vec![look(move |is| !is.manifests[manifest])])
        }
        (Pull(manifest), Answer::Manifest(found)) if manifest == *found => {
            one(vec![look(move |is| is.manifests[manifest])])
        }
        (DeleteTag(tag), Answer::Done | Answer::Unclear) => {
            let gone = act(move |is| is.tags[tag].is_some(), move |is| is.tags[tag] = None);
            one(maybe_all(vec![gone], *answer == Answer::Unclear))
        }
        (DeleteTag(tag) | PullTag(tag) | HeadTag(tag), Answer::Absent) => {
            one(vec![look(move |is| is.tags[tag].is_none())])
        }
        (PullTag(tag) | HeadTag(tag), &Answer::Manifest(found)) => {
            one(vec![look(move |is| is.tags[tag] == Some(found))])
        }
        (ListTags, &Answer::Listed(listed)) => {
            // One list may be many reads: each name by itself was there, or was not.
            let each = (0..TAGS.len()).map(|tag| look(move |is| is.tags[tag].is_some() == (listed & (1 << tag) != 0)));
            let known = if listed == 0 { Some(look(|is| is.catalog)) } else { None };
            one(each.chain(known).collect())
        }
        (ListTags, Answer::Absent) => one(vec![look(|is| !is.catalog && is.tags == [None; TAGS.len()])]),
        (ListReferrers, &Answer::Listed(listed)) => one(vec![look(move |is| is.entry == (listed != 0))]),
        (Expire, Answer::Done)
        | (
            Pull(_) | PullTag(_) | HeadTag(_) | ListTags | ListReferrers | Stat { .. } | Status | Expire,
            Answer::Unclear,
        ) => one(Vec::new()),
        _ => about_blobs(request, answer),
    }
}

fn about_blobs(request: Request, answer: &Answer) -> Result<Vec<Steps>, String> {
    use Request::*;
    let one = |steps: Steps| Ok(vec![steps]);
    let unclear = *answer == Answer::Unclear;
    match (request, answer) {
        (Upload { repository, blob }, Answer::Done | Answer::Unclear) => {
            one(maybe_all(vec![hold(repository, blob)], unclear))
        }
        (Stat { repository, blob }, Answer::Done) => one(vec![look(move |is| is.held[repository][blob])]),
        (Stat { repository, blob } | DeleteBlob { repository, blob }, Answer::Absent) => {
            one(vec![look(move |is| !is.held[repository][blob])])
        }
        (DeleteBlob { repository, blob }, Answer::Done | Answer::Unclear) => {
            let give_up = move |is: &mut State| {
                is.held[repository][blob] = false;
                is.given_up[repository][blob] = true;
            };
            let gone = act(move |is| is.held[repository][blob], give_up);
            one(maybe_all(vec![gone], unclear))
        }
        (Mount(blob), Answer::Done | Answer::Unclear) => {
            let source = look(move |is| is.held[0][blob] || is.held[1][blob]);
            one(maybe_all(vec![source, hold(1, blob).after(1)], unclear))
        }
        (Mount(blob), Answer::Absent) => {
            one((0..REPOSITORIES).map(|repository| look(move |is: &State| !is.held[repository][blob])).collect())
        }
        _ => about_the_session(request, answer),
    }
}

fn about_the_session(request: Request, answer: &Answer) -> Result<Vec<Steps>, String> {
    use Request::*;
    let one = |steps: Steps| Ok(vec![steps]);
    let unclear = *answer == Answer::Unclear;
    match (request, answer) {
        (Append(chunk), Answer::Received(_) | Answer::Unclear) => {
            let (start, bytes, blob) = CHUNKS[chunk];
            if let Answer::Received(received) = answer
                && *received != start + bytes.len() as u64
            {
                return Err(format!("{request:?}: {answer:?}"));
            }
            let fits = move |is: &State| is.is_open() && is.received() == start;
            one(maybe_all(vec![act(fits, move |is| is.session.content = Some(blob))], unclear))
        }
        (Append(chunk), &Answer::OutOfOrder(received)) => {
            one(vec![look(move |is| is.is_open() && is.received() == received && received != CHUNKS[chunk].0)])
        }
        (Status, &Answer::Received(received)) => {
            // A chunk that came just before the end may be written down after it.
            let says = move |is: &State| is.goes_on() && (is.received() == received || !is.is_open());
            one(vec![look(says)])
        }
        (Status, Answer::Absent) => one(vec![look(|is| !is.goes_on())]),
        (Append(_) | Cancel, Answer::Absent) => one(vec![look(|is| !is.is_open())]),
        (Cancel, Answer::Done | Answer::Unclear) => {
            one(maybe_all(vec![act(State::is_open, |is| is.session.end = End::Cancelled)], unclear))
        }
        (Finish(blob), Answer::Done) => {
            // It is over, and the blob is there: a reply to somebody who says the same may have been lost.
            let known = vec![look(|is| !is.is_open()), look(move |is| is.held[0][blob]).after(1)];
            Ok(vec![finish(blob), known])
        }
        (Finish(blob), Answer::WrongDigest) => {
            let differs = look(move |is| is.is_open() && is.session.content != Some(blob));
            one(vec![differs, end(End::Cancelled).after(1)])
        }
        (Finish(blob), Answer::Absent) => {
            let ended = look(move |is| !is.is_open() && is.session.end != End::Finished(blob));
            let differently = vec![ended, look(move |is| !is.held[0][blob]).after(1)];
            // Who reads other bytes than those that somebody else finishes as this cannot help with it.
            let other = look(move |is| is.session.content != Some(blob));
            let elsewhere = vec![other, look(|is| !is.is_open()).after(1), look(move |is| !is.held[0][blob]).after(2)];
            Ok(vec![differently, elsewhere])
        }
        (Finish(blob), Answer::Unclear) => {
            Ok(vec![maybe_all(finish(blob), true), maybe_all(vec![end(End::Cancelled)], true)])
        }
        _ => Err(format!("{request:?}: {answer:?}")),
    }
}

/// If the answer does not say whether it was done, no step needs to be.
fn maybe_all(steps: Steps, unclear: bool) -> Steps {
    if unclear { steps.into_iter().map(Step::maybe).collect() } else { steps }
}

fn hold(repository: usize, blob: usize) -> Step<State> {
    let hold = move |is: &mut State| {
        is.held[repository][blob] = true;
        is.given_up[repository][blob] = false;
    };
    act(|_| true, hold)
}

/// Ends the session, unless somebody has.
fn end(how: End) -> Step<State> {
    act(
        |_| true,
        move |is| {
            if is.is_open() {
                is.session.end = how;
            }
        },
    )
}

fn finish(blob: usize) -> Steps {
    let content = look(move |is| is.can_be_finished_as(blob));
    vec![content, end(End::Finished(blob)).after(1), hold(0, blob).after(1)]
}

/// Everything that points to it goes, and then the manifest; what is gone already may be.
fn delete(manifest: usize) -> Steps {
    let there = look(move |is| is.manifests[manifest]);
    let untag = |tag: usize| {
        let points = move |is: &State| is.tags[tag] == Some(manifest);
        act(points, move |is| is.tags[tag] = None).after(1).maybe().repeats()
    };
    let entry = act(move |_| manifest == REFERRER, |is| is.entry = false).after(1).maybe().repeats();
    let nothing_points = move |is: &State| !(is.tags.contains(&Some(manifest)) || manifest == REFERRER && is.entry);
    let gone = act(nothing_points, move |is| is.manifests[manifest] = false).after(1);
    [there].into_iter().chain((0..TAGS.len()).map(untag)).chain([entry, gone]).collect()
}

/// What it needs is there; then it is; then it is listed; then the tags point to it. Until the last of these is done it
/// may start again.
fn push(manifest: usize, tags: &[usize], condition: Option<Condition>, answer: &Answer) -> Result<Vec<Steps>, String> {
    let needed = needs(manifest);
    let looks: Steps = needed
        .iter()
        .map(|need| {
            let need = *need;
            look(move |is: &State| is.has(need))
        })
        .collect();
    let after_looks = (1 << looks.len()) - 1;
    let catalog = act(|_| true, |is| is.catalog = true).after(after_looks).lasts();
    let published = act(|_| true, move |is| is.manifests[manifest] = true).after(after_looks).repeats();
    let mut steps: Steps = looks.into_iter().chain([catalog, published]).collect();
    if manifest == REFERRER {
        let before = (1 << steps.len()) - 1;
        steps.push(act(|is| is.manifests[REFERRER], |is| is.entry = true).after(before).repeats());
    }
    let before = (1 << steps.len()) - 1;
    let set = |tag: &usize| set_tag(manifest, *tag, condition, before);
    if tags.len() > 1 {
        // Until all are set, those that are may be deleted with the manifest, and then they are set once more.
        steps.extend(tags.iter().map(|tag| set(tag).maybe().repeats()));
    }
    steps.extend(tags.iter().map(set));
    match answer {
        Answer::Done => Ok(vec![steps]),
        Answer::Unclear => Ok(vec![maybe_all(steps, true)]),
        Answer::Refused => {
            let (condition, tag) = (condition.ok_or("refused without a condition")?, tags[0]);
            let mut steps = maybe_all(steps, true);
            steps.push(look(move |is| !holds(condition, is.tags[tag])));
            Ok(vec![steps])
        }
        Answer::Missing(missing) => {
            let missing = missing.clone();
            let mut steps = maybe_all(steps, true);
            steps.extend(needed.into_iter().map(|need| {
                let is_there = !missing.contains(&need);
                look(move |is| is.has(need) == is_there)
            }));
            Ok(vec![steps])
        }
        answer => Err(format!("a push: {answer:?}")),
    }
}

fn holds(condition: Condition, tag: Option<usize>) -> bool {
    match condition {
        Condition::Absent => tag.is_none(),
        Condition::Is(manifest) => tag == Some(manifest),
    }
}

fn set_tag(manifest: usize, tag: usize, condition: Option<Condition>, before: u32) -> Step<State> {
    let can = move |is: &State| {
        let overtakes = is.overtaken == Some(tag) && is.tags[tag] != Some(manifest);
        (is.is_settled() || overtakes) && condition.is_none_or(|condition| holds(condition, is.tags[tag]))
    };
    let set = move |is: &State, overtaken| {
        let mut next = is.clone();
        next.tags[tag] = Some(manifest);
        next.overtaken = overtaken;
        next
    };
    let step = Step::act(move |is: &State| (can(is) && is.manifests[manifest]).then(|| set(is, None))).after(before);
    if condition.is_some() {
        return step;
    }
    // One that lost to another took effect just before that, wherever it was itself by then.
    step.or_early(move |is: &State| can(is).then(|| set(is, Some(tag))))
}
