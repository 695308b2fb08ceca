//! Fewer messages that still differ.

use super::lane::Lane;
use super::run::{Difference, run};
use super::script::{Msg, Script, Step};

/// How many runs shrinking may take.
const TRIES: usize = 160;

/// A small script that shows the same kind of difference on new server connections.
pub(super) fn shrink(lane: &mut Lane, script: Script, seen: Difference) -> (Script, Difference) {
    let (mut best, mut seen) = (script, seen);
    let mut tries = 0;
    lane.hurry = true;
    loop {
        let smaller = candidates(&best).into_iter().find_map(|candidate| {
            tries += 1;
            if tries > TRIES {
                return None;
            }
            let difference = fresh(lane, &candidate)?;
            (difference.about == seen.about).then_some((candidate, difference))
        });
        match smaller {
            Some(smaller) => (best, seen) = smaller,
            None => break,
        }
    }
    lane.hurry = false;
    (best, seen)
}

/// Runs `script` on new server connections.
pub(super) fn fresh(lane: &mut Lane, script: &Script) -> Option<Difference> {
    lane.renew();
    run(lane, script)
}

/// Scripts with something less, the most first.
fn candidates(script: &Script) -> Vec<Script> {
    let mut found = Vec::new();
    let with = |steps: Vec<Step>| Script { login: script.login.clone(), steps };
    let count = script.steps.len();
    let mut size = count / 2;
    while size > 0 {
        for start in (0..count).step_by(size).rev() {
            let mut steps = script.steps.clone();
            steps.drain(start..count.min(start + size));
            found.push(with(steps));
        }
        size /= 2;
    }
    if !script.login.is_empty() {
        found.push(Script { login: Vec::new(), steps: script.steps.clone() });
    }
    for (number, step) in script.steps.iter().enumerate() {
        let Step::Send(messages) = step else { continue };
        for less in fewer(messages) {
            let mut steps = script.steps.clone();
            steps[number] = Step::Send(less);
            found.push(with(steps));
        }
    }
    found
}

/// `messages` without one of them, or without a part of a text.
fn fewer(messages: &[Msg]) -> Vec<Vec<Msg>> {
    let mut found = Vec::new();
    if messages.len() > 1 {
        for number in 0..messages.len() {
            let mut less = messages.to_vec();
            less.remove(number);
            found.push(less);
        }
    }
    for (number, message) in messages.iter().enumerate() {
        let Msg::Query(sql) = message else { continue };
        let parts: Vec<&[u8]> = split(sql);
        for part in (0..parts.len()).filter(|_| parts.len() > 1) {
            let mut rest = parts.clone();
            rest.remove(part);
            let mut less = messages.to_vec();
            less[number] = Msg::Query(rest.join(&b"; "[..]));
            found.push(less);
        }
    }
    found
}

/// The statements of a text, if no literal contains what stands between them.
fn split(sql: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = sql;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"; ") {
        parts.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    parts.push(rest);
    parts
}
