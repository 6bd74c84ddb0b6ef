//! What clients asked at the same time, what each was answered, and whether one registry could have answered like that.

pub(crate) mod checker;
pub(crate) mod content;
pub(crate) mod model;
pub(crate) mod random;
pub(crate) mod request;

use std::fmt::Write as _;

use model::{State, ways};
use request::{Answer, Request};

/// A request, and when it was made and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) client: usize,
    pub(crate) called: usize,
    pub(crate) returned: usize,
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

/// Whether one registry could have answered like that; why not.
pub(crate) fn judge(initial: &State, events: &[Event]) -> Result<(), String> {
    let call = |event: &Event| {
        let returned = (event.answer != Answer::Unclear).then_some(event.returned);
        Ok(checker::Call { called: event.called, returned, ways: ways(event.request, &event.answer)? })
    };
    let explained = events.iter().map(call).collect::<Result<Vec<_>, String>>().and_then(|calls| {
        checker::check(initial, &calls, State::is_settled).map_err(|at| format!("line {at} cannot be"))
    });
    explained.map_err(|why| {
        let mut told = format!("{why}\nfrom {initial:?}\n");
        for (line, Event { client, called, returned, request, answer }) in events.iter().enumerate() {
            let _ = writeln!(told, "{line:3}: {called:3} to {returned:3}  client {client}  {request:?}: {answer:?}");
        }
        told
    })
}
