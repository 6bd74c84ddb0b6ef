//! What `strace -f -xx` wrote, read back.

use std::{
    collections::HashMap,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// A system call of some thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) thread: u32,
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    /// Negative if it failed.
    pub(crate) result: i64,
    /// It failed because we wanted it to.
    pub(crate) injected: bool,
}

/// The recording in its order. A call takes effect somewhere between the two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Enter(usize),
    Exit(usize),
}

#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) calls: Vec<Call>,
    pub(crate) events: Vec<Event>,
}

/// Calls whose failure says nothing, or that are not the store's.
const NOT_FAULTY: [&str; 3] = ["close", "fcntl", "writev"];

/// Everything that changes files or file descriptors, under all its names, whatever waits for the disk, and how the store
/// looks at it.
pub(crate) const CALLS: &str = "?open,openat,?openat2,?creat,close,?close_range,?dup,?dup2,dup3,fcntl,?mkdir,mkdirat,?link,linkat,\
    ?rename,?renameat,renameat2,?unlink,unlinkat,?rmdir,?symlink,symlinkat,write,pwrite64,writev,?pwritev,?pwritev2,\
    ?truncate,ftruncate,fallocate,?copy_file_range,?sendfile,splice,?chmod,fchmod,fchmodat,?fchmodat2,fsync,fdatasync,\
    ?sync_file_range,?syncfs,sync,msync,?io_uring_setup,flock,?fstat,?newfstatat,statx,getdents64,read,pread64";

/// A call that fails without having been made: the n-th of this name, in each thread that makes so many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault<'a> {
    pub(crate) call: &'a str,
    pub(crate) n: usize,
    pub(crate) error: &'static str,
}

/// Runs a command and records these calls.
pub(crate) fn record(command: &Command, calls: &str, log: &Path, fault: Option<Fault<'_>>) -> ExitStatus {
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-qq", "-xx", "-s", "100000000", "-e", "signal=none", "-o"]).arg(log);
    strace.args(["-e", &format!("trace={calls}")]);
    if let Some(Fault { call, n, error }) = fault {
        strace.args(["-e", &format!("inject={call}:error={error}:when={n}")]);
    }
    strace.arg(command.get_program()).args(command.get_args());
    strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.stdout(Stdio::null()).stderr(Stdio::null());
    strace.status().unwrap_or_else(|error| panic!("strace: {error}"))
}

impl Recording {
    pub(crate) fn parse(log: &str) -> Self {
        let mut recording = Self::default();
        let mut unfinished: HashMap<u32, (usize, String)> = HashMap::new();
        for line in log.lines() {
            let (thread, rest) = line.trim_start().split_once(' ').unwrap();
            let (thread, rest) = (thread.parse().unwrap(), rest.trim_start());
            if rest.starts_with("+++") || rest.starts_with("---") {
                continue;
            }
            if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
                let call = recording.enter(thread, begun);
                unfinished.insert(thread, (call, begun.to_owned()));
            } else if let Some(resumed) = rest.strip_prefix("<... ") {
                let (_, tail) = resumed.split_once(" resumed>").unwrap();
                let (call, begun) = unfinished.remove(&thread).unwrap();
                recording.exit(call, &(begun + tail));
            } else {
                let call = recording.enter(thread, rest);
                recording.exit(call, rest);
            }
        }
        recording
    }

    fn enter(&mut self, thread: u32, text: &str) -> usize {
        let (name, arguments) = text.split_once('(').unwrap();
        let call = Call { thread, name: name.to_owned(), arguments: split(arguments), result: -1, injected: false };
        self.calls.push(call);
        self.events.push(Event::Enter(self.calls.len() - 1));
        self.calls.len() - 1
    }

    fn exit(&mut self, call: usize, text: &str) {
        let (arguments, result) = text.rsplit_once(" = ").unwrap();
        let (_, arguments) = arguments.split_once('(').unwrap();
        let one = &mut self.calls[call];
        one.arguments = split(arguments.trim_end().strip_suffix(')').unwrap());
        // A thread that ends in a call gets no result.
        one.result = result.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(-1);
        one.injected = result.ends_with("(INJECTED)");
        self.events.push(Event::Exit(call));
    }

    /// What the thread that the store works on called since it last opened this path, each with how many calls of this name
    /// it had made by then. No other thread made as many, so that a fault with this count hits no other.
    pub(crate) fn by_the_store(&self, since: &str) -> Vec<(&Call, usize)> {
        let marks = |call: &Call| call.name == "openat" && call.text(1) == since;
        let mark = self.calls.iter().rposition(marks).unwrap();
        let store = self.calls[mark].thread;
        let (mut counts, mut others) = (HashMap::new(), HashMap::new());
        let mut made = Vec::new();
        for (at, call) in self.calls.iter().enumerate() {
            let counts = if call.thread == store { &mut counts } else { others.entry(call.thread).or_default() };
            let count: &mut usize = counts.entry(call.name.as_str()).or_default();
            *count += 1;
            if call.thread == store && at > mark {
                made.push((call, *count));
            }
        }
        made.retain(|(call, _)| !NOT_FAULTY.contains(&call.name.as_str()));
        for (Call { name, .. }, n) in &made {
            let most = others.values().filter_map(|counts| counts.get(name.as_str())).max();
            assert!(most.is_none_or(|most| most < n), "{name} {n} would fail elsewhere too: {most:?}");
        }
        made
    }
}

impl Call {
    pub(crate) fn argument(&self, n: usize) -> &str {
        &self.arguments[n]
    }

    /// All strings of an argument, one after the other.
    pub(crate) fn bytes(&self, n: usize) -> Vec<u8> {
        let hex = |quoted: &str| {
            let digits = quoted.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).unwrap());
            digits.collect::<Vec<_>>()
        };
        self.argument(n).split('"').skip(1).step_by(2).flat_map(hex).collect()
    }

    pub(crate) fn text(&self, n: usize) -> String {
        String::from_utf8(self.bytes(n)).unwrap()
    }

    pub(crate) fn number(&self, n: usize) -> i64 {
        self.argument(n).parse().unwrap_or_else(|_| panic!("{n} of {self:?}"))
    }

    pub(crate) fn mode(&self, n: usize) -> u32 {
        u32::from_str_radix(self.argument(n), 8).unwrap()
    }

    pub(crate) fn has(&self, n: usize, flag: &str) -> bool {
        self.argument(n).split('|').any(|it| it == flag)
    }
}

/// At the commas that are in no bracket. Strings are in hex and have none of either.
fn split(arguments: &str) -> Vec<String> {
    let (mut depth, mut split) = (0, vec![String::new()]);
    for c in arguments.chars() {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                split.push(String::new());
                continue;
            }
            _ => {}
        }
        split.last_mut().unwrap().push(c);
    }
    split.into_iter().map(|argument| argument.trim().to_owned()).collect()
}

#[test]
fn a_trace_is_read_back_with_calls_of_several_threads_in_between() {
    let recording = Recording::parse(
        "7 openat(AT_FDCWD, \"\\x2f\\x61\", O_RDONLY|O_CLOEXEC) = 3\n\
         8 write(1, \"\\x68\\x69\", 2 <unfinished ...>\n\
         7 fsync(3) = -1 EIO (Input/output error) (INJECTED)\n\
         8 <... write resumed>) = 2\n\
         8 writev(1, [{iov_base=\"\\x68\", iov_len=1}, {iov_base=\"\\x69\", iov_len=1}], 2) = 2\n\
         8 +++ exited with 0 +++\n",
    );
    let [open, write, sync, gather] = recording.calls.as_slice() else { panic!("{recording:?}") };
    assert_eq!((open.text(1).as_str(), open.has(2, "O_CLOEXEC"), open.result), ("/a", true, 3));
    assert_eq!((write.text(1).as_str(), write.number(2), write.thread), ("hi", 2, 8));
    assert_eq!((sync.name.as_str(), sync.result, sync.injected), ("fsync", -1, true));
    assert_eq!(gather.text(1), "hi");
    let order = [0, 1, 2].map(|n| recording.events[n + 1].clone());
    assert_eq!(order, [Event::Exit(0), Event::Enter(1), Event::Enter(2)]);
}
