//! The checker, on histories of one number.

use crate::history::checker::{Call, Step, check};

/// A write, or a read of what it answered, of one number.
#[derive(Clone, Copy)]
enum Did {
    Wrote(u32),
    Read(u32),
}
use Did::{Read, Wrote};

fn call(called: usize, returned: Option<usize>, did: Did) -> Call<u32> {
    let step = match did {
        Wrote(value) if returned.is_some() => Step::act(move |_| Some(value)),
        Wrote(value) => Step::act(move |_| Some(value)).maybe(),
        Read(value) => Step::look(move |is| *is == value),
    };
    Call { called, returned, ways: vec![vec![step]] }
}

fn explained(calls: &[Call<u32>]) -> Result<(), usize> {
    check(&0, calls, |_| true)
}

#[test]
fn what_one_order_explains_is_linearizable() {
    assert_eq!(explained(&[call(0, Some(1), Wrote(1)), call(2, Some(3), Read(1))]), Ok(()));
    // A write may be seen or not while it is under way.
    let write = || call(0, Some(5), Wrote(1));
    assert_eq!(explained(&[write(), call(1, Some(2), Read(0)), call(3, Some(4), Read(1))]), Ok(()));
    // Two writes under way take effect in either order.
    let writes = || [call(0, Some(3), Wrote(1)), call(1, Some(2), Wrote(2))];
    for last in [1, 2] {
        let [one, two] = writes();
        assert_eq!(explained(&[one, two, call(4, Some(5), Read(last))]), Ok(()));
    }
}

#[test]
fn what_no_order_explains_names_the_answer_that_cannot_be() {
    // Stale: the write had returned.
    assert_eq!(explained(&[call(0, Some(1), Wrote(1)), call(2, Some(3), Read(0))]), Err(1));
    // Seen, and then unseen.
    let write = call(0, Some(5), Wrote(1));
    assert_eq!(explained(&[write, call(1, Some(2), Read(1)), call(3, Some(4), Read(0))]), Err(2));
    // Nobody wrote that.
    assert_eq!(explained(&[call(0, Some(1), Read(7))]), Err(0));
    // Two readers disagree about the order of two writes.
    let writes = [call(0, Some(9), Wrote(1)), call(0, Some(9), Wrote(2))];
    let reads = [1, 2, 1].into_iter().enumerate().map(|(at, value)| call(2 * at + 1, Some(2 * at + 2), Read(value)));
    assert_eq!(explained(&writes.into_iter().chain(reads).collect::<Vec<_>>()), Err(4));
}

#[test]
fn what_never_returned_may_take_effect_late_or_never_but_not_twice() {
    let write = || call(0, None, Wrote(1));
    let reads = |values: &[u32]| {
        let reads = values.iter().enumerate().map(|(at, value)| call(2 * at + 1, Some(2 * at + 2), Read(*value)));
        explained(&[write()].into_iter().chain(reads).collect::<Vec<_>>())
    };
    assert_eq!(reads(&[0, 0]), Ok(()));
    assert_eq!(reads(&[0, 1, 1]), Ok(()));
    assert_eq!(reads(&[1, 0]), Err(2));
    let over = call(3, Some(4), Wrote(2));
    let history = [write(), call(1, Some(2), Read(1)), over, call(5, Some(6), Read(2)), call(7, Some(8), Read(1))];
    assert_eq!(explained(&history), Err(4));
}

#[test]
fn steps_of_one_call_may_be_seen_one_by_one_in_their_order() {
    let add = |bit: u32| Step::act(move |is: &u32| Some(is | bit));
    let push = || Call { called: 0, returned: Some(9), ways: vec![vec![add(1), add(2).after(1)]] };
    let reads = |values: &[u32]| {
        let reads = values.iter().enumerate().map(|(at, value)| call(2 * at + 1, Some(2 * at + 2), Read(*value)));
        explained(&[push()].into_iter().chain(reads).collect::<Vec<_>>())
    };
    assert_eq!(reads(&[0, 1, 3]), Ok(()));
    assert_eq!(reads(&[2]), Err(1));
    assert_eq!(explained(&[push(), call(10, Some(11), Read(1))]), Err(1));
}
