//! A disk that loses power: what was called is replayed, and what no sync covers may be gone.
//!
//! # The model
//!
//! * `fsync` or `fdatasync` of a file makes its bytes durable, as they were when the call began; `fsync` its mode too. It
//!   does nothing for its names.
//! * `fsync` of a folder makes its names durable, as they were when the call began: those that are there and the absence
//!   of those that are not. It does nothing for what the names lead to, for folders below, nor for its own name above.
//! * A name leads to a file or folder, not to a copy: what has two names survives under each that is durable. To rename
//!   is a new name and one less, also in one folder, and each of the two waits for a sync. (Real disks do both at once; a
//!   protocol that survives this survives those.)
//! * A file whose sync fails has lost the bytes that it was to make durable: what is in memory counts as written from then
//!   on, and the next sync has nothing to do (Linux). A folder is in the journal, and so is its size: while that cannot be
//!   written every sync fails (ext4, XFS), so one that succeeds covers all.
//! * A new file or folder has the mode that it was made with, and is empty. Locks survive nothing.
//! * A call that has not returned has done nothing. A sync that has not returned has synced nothing.
//!
//! Everything else may survive or not: [`Survivors`] says which.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Range,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::trace::{Call, Event, Recording};
use crate::tree::Tree;

mod survivors;

pub(crate) use survivors::Survivors;

type Names = BTreeMap<String, usize>;

/// Something on the disk, as it is and as it is durable. It has the number of its place in [`Disk::nodes`].
#[derive(Clone)]
struct Node {
    now: State,
    durable: State,
    /// How often it was changed, and how often when it was last made durable: two syncs may overlap.
    changes: u64,
    synced: u64,
    /// Bytes that a sync failed to write, and that no other will.
    lost: Vec<Range<usize>>,
}

#[derive(Clone)]
struct State {
    mode: u32,
    content: Content,
}

#[derive(Clone)]
enum Content {
    File(Rc<Vec<u8>>),
    Folder(Names),
}

/// A disk with one directory on it, and the files of one process that are open.
pub(crate) struct Disk {
    directory: PathBuf,
    nodes: Vec<Node>,
    open: HashMap<i64, Open>,
    /// What syncs under way will have made durable.
    syncing: HashMap<usize, (usize, State, u64)>,
    /// Where calls under way write to. A descriptor may be closed and used again while they are.
    writing: HashMap<usize, Open>,
    /// Calls that this disk does not obey, to see what comes of it.
    deaf_to: Option<&'static str>,
}

#[derive(Clone, Copy)]
struct Open {
    node: usize,
    at: usize,
}

const ROOT: usize = 0;
const UMASK: u32 = 0o022;

impl Disk {
    /// `directory` is there, empty and durable.
    pub(crate) fn new(directory: &Path, deaf_to: Option<&'static str>) -> Self {
        let mut disk = Self {
            directory: directory.to_owned(),
            nodes: Vec::new(),
            open: HashMap::new(),
            syncing: HashMap::new(),
            writing: HashMap::new(),
            deaf_to,
        };
        let mode = fs::metadata(directory).unwrap().permissions().mode() & 0o7777;
        disk.add(mode, Content::Folder(Names::new()));
        disk
    }

    /// `true` if there may be something else to survive than before.
    pub(crate) fn follow(&mut self, event: &Event, recording: &Recording) -> bool {
        match *event {
            Event::Enter(id) => {
                self.enter(id, &recording.calls[id]);
                false
            }
            Event::Exit(id) => self.exit(id, &recording.calls[id]),
        }
    }

    fn enter(&mut self, id: usize, call: &Call) {
        match call.name.as_str() {
            // From here on the number may be given to another file.
            "close" => {
                self.open.remove(&call.number(0));
            }
            "fsync" | "fdatasync" if self.deaf_to != Some(call.name.as_str()) => {
                if let Some(Open { node, .. }) = self.open.get(&call.number(0)) {
                    let Node { now, durable, changes, .. } = &self.nodes[*node];
                    let mut state = now.clone();
                    if call.name == "fdatasync" {
                        state.mode = durable.mode;
                    }
                    self.syncing.insert(id, (*node, state, *changes));
                }
            }
            "write" | "pwrite64" | "ftruncate" | "fchmod" => {
                if let Some(open) = self.open.get(&call.number(0)) {
                    self.writing.insert(id, *open);
                }
            }
            _ => {}
        }
    }

    fn exit(&mut self, id: usize, call: &Call) -> bool {
        let syncing = self.syncing.remove(&id);
        let writing = self.writing.remove(&id);
        if call.result < 0 {
            if let Some((node, state, _)) = syncing {
                self.failed_to_sync(node, &state);
            }
            return false;
        }
        match call.name.as_str() {
            "open" => self.opened(call, None, 0),
            "openat" => self.opened(call, Some(0), 1),
            "mkdir" => self.made(call, None, 0),
            "mkdirat" => self.made(call, Some(0), 1),
            "link" => self.linked(call, [(None, 0), (None, 1)]),
            "linkat" => self.linked(call, [(Some(0), 1), (Some(2), 3)]),
            "rename" => self.renamed(call, [(None, 0), (None, 1)]),
            "renameat" | "renameat2" => self.renamed(call, [(Some(0), 1), (Some(2), 3)]),
            "unlink" | "rmdir" => self.unlinked(call, None, 0),
            "unlinkat" => self.unlinked(call, Some(0), 1),
            "write" => writing.is_some_and(|open| self.wrote(call, open, open.at)),
            "pwrite64" => writing.is_some_and(|open| self.wrote(call, open, usize::try_from(call.number(3)).unwrap())),
            "ftruncate" => writing.is_some_and(|open| {
                let length = usize::try_from(call.number(1)).unwrap();
                self.change(open.node, |state| state.bytes().resize(length, 0));
                self.nodes[open.node].lost.retain_mut(|lost| {
                    lost.end = lost.end.min(length);
                    lost.start < lost.end
                });
                true
            }),
            "fchmod" => writing.is_some_and(|open| {
                let mode = call.mode(1);
                self.change(open.node, |state| state.mode = mode);
                true
            }),
            "fsync" | "fdatasync" => syncing.is_some_and(|sync| self.synced(sync)),
            "close" | "flock" | "fstat" | "newfstatat" | "statx" | "getdents64" | "read" | "pread64" => false,
            "fcntl" if !call.argument(1).starts_with("F_DUPFD") => false,
            "writev" if !self.open.contains_key(&call.number(0)) => false,
            "dup" | "dup2" | "dup3" | "fcntl" => {
                if let Some(open) = self.open.get(&call.number(0)).copied() {
                    self.open.insert(call.result, open);
                }
                false
            }
            _ => unknown(call),
        }
    }

    fn opened(&mut self, call: &Call, folder: Option<usize>, path: usize) -> bool {
        let flags = path + 1;
        let (node, is_new) = if call.has(flags, "O_TMPFILE") {
            // Its folder only says on which disk.
            let node = self.place(call, folder, path).map(|_| self.add_file(call.mode(flags + 1)));
            (node, false)
        } else {
            match self.place(call, folder, path) {
                None => (None, false),
                Some(_) if call.has(flags, "O_TRUNC") || call.has(flags, "O_APPEND") => unknown(call),
                Some((above, name)) => match self.find(above, &name) {
                    Some(node) => (Some(node), false),
                    None if call.has(flags, "O_CREAT") => {
                        let node = self.add_file(call.mode(flags + 1));
                        self.name(above, &name, Some(node));
                        (Some(node), true)
                    }
                    None => panic!("opened, and not there: {call:?}"),
                },
            }
        };
        match node {
            Some(node) => self.open.insert(call.result, Open { node, at: 0 }),
            None => self.open.remove(&call.result),
        };
        is_new
    }

    fn made(&mut self, call: &Call, folder: Option<usize>, path: usize) -> bool {
        let Some((above, name)) = self.place(call, folder, path) else { return false };
        let node = self.add(call.mode(path + 1) & !UMASK, Content::Folder(Names::new()));
        self.name(above, &name, Some(node));
        true
    }

    fn linked(&mut self, call: &Call, [(from, path), (to, new)]: [(Option<usize>, usize); 2]) -> bool {
        let Some((above, name)) = self.place(call, to, new) else { return false };
        let text = call.text(path);
        let node = if let Some(number) = text.strip_prefix("/proc/self/fd/") {
            self.open[&number.parse().unwrap()].node
        } else {
            let (above, name) = self.place(call, from, path).unwrap();
            self.find(above, &name).unwrap()
        };
        self.name(above, &name, Some(node));
        true
    }

    fn renamed(&mut self, call: &Call, [(from, path), (to, new)]: [(Option<usize>, usize); 2]) -> bool {
        let (Some(old), Some(new)) = (self.place(call, from, path), self.place(call, to, new)) else { return false };
        let node = self.find(old.0, &old.1).unwrap();
        if old.0 == new.0 {
            // In one folder it is one change.
            self.change(old.0, |state| {
                state.names().remove(&old.1);
                state.names().insert(new.1, node);
            });
        } else {
            self.name(new.0, &new.1, Some(node));
            self.name(old.0, &old.1, None);
        }
        true
    }

    fn unlinked(&mut self, call: &Call, folder: Option<usize>, path: usize) -> bool {
        let Some((above, name)) = self.place(call, folder, path) else { return false };
        self.name(above, &name, None);
        true
    }

    fn wrote(&mut self, call: &Call, open: Open, at: usize) -> bool {
        let mut bytes = call.bytes(1);
        bytes.truncate(usize::try_from(call.result).unwrap());
        let end = at + bytes.len();
        self.change(open.node, |state| {
            let file = state.bytes();
            file.resize(file.len().max(end), 0);
            file[at..end].copy_from_slice(&bytes);
        });
        // What is written anew is to be synced again.
        self.nodes[open.node].lost.retain(|lost| lost.start < at || end < lost.end);
        if call.name == "write"
            && let Some(open) = self.open.get_mut(&call.number(0))
        {
            open.at = end;
        }
        true
    }

    fn synced(&mut self, (node, mut state, changes): (usize, State, u64)) -> bool {
        let node = &mut self.nodes[node];
        if changes < node.synced {
            return false;
        }
        for lost in &node.lost {
            state.bytes()[lost.clone()].fill(0);
        }
        (node.durable, node.synced) = (state, changes);
        true
    }

    fn failed_to_sync(&mut self, node: usize, state: &State) {
        let node = &mut self.nodes[node];
        if let (Content::File(written), Content::File(durable)) = (&state.content, &node.durable.content)
            && durable.len() < written.len()
        {
            node.lost.push(durable.len()..written.len());
        }
    }

    /// The folder and the name that a path leads to; `None` outside of the directory.
    fn place(&self, call: &Call, folder: Option<usize>, path: usize) -> Option<(usize, String)> {
        let text = call.text(path);
        let (start, path) = if text.starts_with('/') {
            (ROOT, Path::new(&text).strip_prefix(&self.directory).ok()?)
        } else {
            (self.open.get(&folder.and_then(|folder| call.argument(folder).parse().ok())?)?.node, Path::new(&text))
        };
        let mut names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != ".").collect();
        let name = names.pop().unwrap_or(".");
        let above = names.iter().try_fold(start, |at, name| self.find(at, name))?;
        Some((above, name.to_owned()))
    }

    fn find(&self, folder: usize, name: &str) -> Option<usize> {
        if name == "." {
            return Some(folder);
        }
        let Content::Folder(names) = &self.nodes[folder].now.content else { return None };
        names.get(name).copied()
    }

    fn name(&mut self, folder: usize, name: &str, node: Option<usize>) {
        self.change(folder, |state| match node {
            Some(node) => drop(state.names().insert(name.to_owned(), node)),
            None => drop(state.names().remove(name)),
        });
    }

    fn add_file(&mut self, mode: u32) -> usize {
        self.add(mode & !UMASK, Content::File(Rc::default()))
    }

    fn add(&mut self, mode: u32, content: Content) -> usize {
        let state = State { mode, content };
        self.nodes.push(Node { now: state.clone(), durable: state, changes: 0, synced: 0, lost: Vec::new() });
        self.nodes.len() - 1
    }

    fn change(&mut self, node: usize, change: impl FnOnce(&mut State)) {
        let node = &mut self.nodes[node];
        change(&mut node.now);
        node.changes += 1;
    }
}

fn unknown(call: &Call) -> ! {
    panic!("this disk does not know {call:?}")
}

impl State {
    fn bytes(&mut self) -> &mut Vec<u8> {
        let Content::File(bytes) = &mut self.content else { panic!("not a file") };
        Rc::make_mut(bytes)
    }

    fn names(&mut self) -> &mut Names {
        let Content::Folder(names) = &mut self.content else { panic!("not a folder") };
        names
    }
}

#[test]
fn what_a_failed_sync_lost_the_next_does_not_bring_back() {
    let recording = Recording::parse(
        "7 openat(AT_FDCWD, \"\\x2f\\x61\", O_WRONLY|O_CREAT, 0644) = 3\n\
         7 write(3, \"\\x68\\x69\", 2) = 2\n\
         7 fdatasync(3) = -1 EIO (Input/output error) (INJECTED)\n\
         7 write(3, \"\\x21\", 1) = 1\n\
         7 fdatasync(3) = 0\n\
         7 openat(AT_FDCWD, \"\\x2f\", O_RDONLY|O_DIRECTORY) = 4\n\
         7 fsync(4) = 0\n",
    );
    let mut disk = Disk::new(Path::new("/"), None);
    for event in &recording.events {
        disk.follow(event, &recording);
    }
    let Tree::Folder { below, .. } = disk.survivors(Survivors::None) else { panic!("the directory is gone") };
    assert_eq!(below["a"], Tree::File { mode: 0o644, bytes: Rc::new(b"\0\0!".to_vec()) });
}
