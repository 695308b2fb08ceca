//! A sequence on both sides, and the first difference.

use super::exceptions;
use super::lane::Lane;
use super::look;
use super::script::{Msg, Script, Step};
use super::side::Side;

/// What a difference is about: shrinking keeps to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// The client was answered otherwise than by PostgreSQL.
    Reply,
    /// Its session is not what it should be.
    Own,
    /// Another client sees something of it.
    Other,
    /// It keeps its server connection without a reason.
    Pin,
    /// PostgreSQL itself did not answer: the generator is at fault.
    Stuck,
}

/// Where pgimbal and PostgreSQL part.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    pub(super) about: About,
    pub(super) text: String,
}

impl Difference {
    /// What differences have in common that most likely have one cause.
    pub(super) fn alike(&self) -> String {
        let lines = self.text.lines().skip(1);
        let lines: Vec<String> = lines
            .map(|line| line.chars().filter(|letter| !letter.is_ascii_digit()).take(60).collect())
            .collect();
        format!("{:?}{}", self.about, lines.concat())
    }
}

/// The end of a sequence before its end: a difference, or a known exception.
enum End {
    Differs(Difference),
    Excused,
}

type Outcome = Result<(), End>;

struct Run<'a> {
    lane: &'a mut Lane,
    script: &'a Script,
    at: String,
    /// What was sent since notifications were compared.
    unheard: Vec<Msg>,
}

/// Runs `script` once.
pub(super) fn run(lane: &mut Lane, script: &Script) -> Option<Difference> {
    let mut run = Run { lane, script, at: "login".to_owned(), unheard: Vec::new() };
    let outcome = run.whole();
    lane.holder = None;
    match outcome {
        Ok(()) | Err(End::Excused) => {
            lane.clean(script);
            None
        }
        Err(End::Differs(difference)) => Some(difference),
    }
}

impl Run<'_> {
    fn whole(&mut self) -> Outcome {
        let mut sides = self.log_in()?;
        let outcome = self.steps(&mut sides);
        if matches!(outcome, Err(End::Excused)) {
            self.lane.leave(sides);
            self.lane.wait_for_locks();
            return outcome;
        }
        outcome?;
        self.at = "the end".to_owned();
        // Every third leaves as it is.
        if !self.script.steps.len().is_multiple_of(3) {
            settle(&mut sides);
            self.answers(&mut sides)?;
            self.own(&mut sides)?;
            // What it is given again when others have used the connection.
            if self.script.steps.len().is_multiple_of(2) {
                self.beside(true, &mut sides)?;
                self.own(&mut sides)?;
            }
        }
        self.lane.leave(sides);
        self.lane.holder = None;
        self.after()
    }

    fn log_in(&mut self) -> Result<[Side; 2], End> {
        let sides = self.lane.pair(&self.script.login);
        let sides = sides.map_err(|told| self.differs(About::Reply, &told))?;
        let greeting = [&sides[0], &sides[1]].map(parameters);
        self.compare(About::Reply, &greeting)?;
        Ok(sides)
    }

    fn steps(&mut self, sides: &mut [Side; 2]) -> Outcome {
        for (number, step) in self.script.steps.iter().enumerate() {
            self.at = format!("step {}", number + 1);
            let idle = sides.iter().all(Side::is_idle);
            match step {
                Step::Send(messages) => {
                    sides.iter_mut().for_each(|side| side.send(messages));
                    self.unheard.extend(messages.iter().cloned());
                    if messages.last().is_some_and(Msg::asks) {
                        self.answers(sides)?;
                    }
                }
                Step::Own if idle => self.own(sides)?,
                Step::Beside(resident) if idle => self.beside(*resident, sides)?,
                Step::Hold if self.lane.kind.two && self.lane.holder.is_none() => self.hold()?,
                Step::Release => self.release()?,
                Step::Relog => self.relog(sides)?,
                Step::Own | Step::Beside(_) | Step::Hold => {}
            }
        }
        Ok(())
    }

    fn answers(&mut self, sides: &mut [Side; 2]) -> Outcome {
        let told = sides.each_mut().map(|side| look::without_plans(side.answers()));
        if told[0] != told[1] && self.lane.is_pooled() && lacks_a_statement(&told) {
            return Err(End::Excused);
        }
        self.compare(About::Reply, &told)?;
        let parameters = [&sides[0], &sides[1]].map(parameters);
        self.compare(About::Reply, &parameters)?;
        self.heard(sides)
    }

    /// Compares what was notified. Between the transactions of the client that is all; a session
    /// that has ended hears nothing more.
    fn heard(&mut self, [pooled, direct]: &mut [Side; 2]) -> Outcome {
        if !pooled.is_idle() || !direct.is_idle() {
            return Ok(());
        }
        let messages = std::mem::take(&mut self.unheard);
        if direct.heard() > pooled.heard() && may_unlisten_too_early(&messages) {
            return Err(End::Excused);
        }
        let told = [pooled.take_heard(direct.heard()), direct.take_heard(0)];
        self.compare(About::Reply, &told)
    }

    fn own(&mut self, sides: &mut [Side; 2]) -> Outcome {
        // What runs behind an open segment may see less than what that has done.
        let checks_pins = self.lane.checks_pins && !sides[0].has_an_open_segment();
        let messages = look::own();
        sides.iter_mut().for_each(|side| side.send(&messages));
        let told = sides.each_mut().map(|side| look::without_plans(side.answers()));
        self.compare(About::Own, &told)?;
        self.heard(sides)?;
        if checks_pins
            && look::shows_nothing_that_pins(&told[1])
            && let Some(reason) = self.lane.stays_pinned(sides)
        {
            let told = [vec![format!("pinned: {reason}")], vec!["not pinned".to_owned()]];
            return Err(self.differs(About::Pin, &told));
        }
        Ok(())
    }

    /// Another client looks while the first one is there.
    fn beside(&mut self, resident: bool, sides: &mut [Side; 2]) -> Outcome {
        self.lane.holder = None;
        // Its answer comes behind that to the question what the client has left.
        sides.iter_mut().for_each(|side| side.send(&[Msg::query("")]));
        self.answers(sides)?;
        if !self.lane.kind.two && self.lane.pinned().is_some() {
            return Ok(());
        }
        self.look(resident)
    }

    fn look(&mut self, resident: bool) -> Outcome {
        let baseline = self.lane.baseline.clone();
        let mark = self.script.mark();
        let messages = look::other((!resident).then_some(mark.as_str()), &baseline.seeded);
        let ask = |side: &mut Side| [side.run(&messages), side.take_heard(0)].concat();
        let (told, expected) = match self.lane.resident.as_mut().filter(|_| resident) {
            Some(side) => (ask(side), baseline.resident),
            None => (ask(&mut self.newcomer()?), baseline.newcomer),
        };
        self.compare(About::Other, &[told, expected])
    }

    fn newcomer(&mut self) -> Result<Side, End> {
        self.lane.other().map_err(|told| self.differs(About::Other, &[told, Vec::new()]))
    }

    /// Other clients look at every server connection.
    fn after(&mut self) -> Outcome {
        self.at = "after it left".to_owned();
        let mut first = self.newcomer()?;
        if self.lane.kind.two {
            let messages = [vec![Msg::query("begin")], look::short()].concat();
            let mut told = first.run(&messages);
            told.retain(|line| !line.starts_with("C BEGIN") && !line.starts_with("Z "));
            let mut expected = self.lane.baseline.short.clone();
            expected.retain(|line| !line.starts_with("Z "));
            self.compare(About::Other, &[told, expected])?;
        }
        let resident = self.script.steps.len().is_multiple_of(2);
        self.look(resident)?;
        if self.lane.kind.two {
            first.run(&[Msg::query("commit")]);
        }
        first.leave();
        Ok(())
    }

    fn hold(&mut self) -> Outcome {
        // Where the first client is pinned or in a transaction there is one other connection.
        let mut holder = self.newcomer()?;
        let told = holder.run(&[Msg::query("begin")]);
        self.lane.holder = Some(holder);
        self.compare(About::Other, &[told, vec!["C BEGIN\\x00".to_owned(), "Z T".to_owned()]])
    }

    fn release(&mut self) -> Outcome {
        let Some(mut holder) = self.lane.holder.take() else { return Ok(()) };
        let told = holder.run(&[Msg::query("commit")]);
        holder.leave();
        self.compare(About::Other, &[told, vec!["C COMMIT\\x00".to_owned(), "Z I".to_owned()]])
    }

    fn relog(&mut self, sides: &mut [Side; 2]) -> Outcome {
        for side in sides.iter_mut() {
            side.leave_and_wait();
        }
        self.lane.wait_for_locks();
        *sides = self.log_in()?;
        Ok(())
    }

    fn compare(&self, about: About, told: &[Vec<String>; 2]) -> Outcome {
        if told[1].last().is_some_and(|line| line.starts_with("(no answer")) {
            return Err(self.differs(About::Stuck, told));
        }
        let [pooled, direct] = told;
        if direct.iter().any(|line| line.starts_with("E FATAL XX000")) {
            // A fault of PostgreSQL's, which ends the session.
            return Err(End::Excused);
        }
        let all = pooled.len() == direct.len();
        let alike = all && pooled.iter().zip(direct).all(|(pooled, direct)| alike(pooled, direct));
        if alike {
            return Ok(());
        }
        let text = self.script.to_string();
        // What another client sees is never excused.
        let excused = self.lane.is_pooled()
            && matches!(about, About::Reply | About::Own)
            && exceptions::is_known(about == About::Own, &text, told);
        if excused { Err(End::Excused) } else { Err(self.differs(about, told)) }
    }

    fn differs(&self, about: About, [pooled, direct]: &[Vec<String>; 2]) -> End {
        let parted = pooled.iter().zip(direct).position(|(pooled, direct)| !alike(pooled, direct));
        let parted = parted.unwrap_or_else(|| pooled.len().min(direct.len()));
        let line =
            |told: &[String]| told.get(parted).map_or("(nothing)", String::as_str).to_owned();
        let text = format!(
            "{about:?} at {}:\n  pgimbal    {}\n  PostgreSQL {}",
            self.at,
            line(pooled),
            line(direct)
        );
        End::Differs(Difference { about, text })
    }
}

/// Whether one of these messages, sent without a wait for the answer to another, may end a LISTEN
/// before what the other has notified has come.
fn may_unlisten_too_early(messages: &[Msg]) -> bool {
    let says = |word: &str| messages.iter().any(|message| message.line().contains(word));
    messages.len() > 1 && (says("UNLISTEN") || says("DISCARD"))
}

/// Ends the segment and the transaction.
fn settle(sides: &mut [Side; 2]) {
    for side in sides.iter_mut() {
        let mut messages = Vec::new();
        if side.is_in_a_segment() {
            messages.push(Msg::Sync);
        }
        messages.push(Msg::query("rollback"));
        side.send(&messages);
    }
}

fn parameters(side: &Side) -> Vec<String> {
    side.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Whether two lines are equal, or differ as documented.
fn alike(pooled: &str, direct: &str) -> bool {
    let known =
        |(here, there, _): &(&str, &str, &str)| pooled.contains(here) && direct.contains(there);
    pooled == direct || exceptions::ANSWERS.iter().any(known)
}

/// A server connection that lacks the client's statement cannot be given it in a transaction that
/// has failed, not even to describe it: known, and told as the failed transaction.
fn lacks_a_statement([pooled, direct]: &[Vec<String>; 2]) -> bool {
    let parted = pooled.iter().zip(direct).find(|(pooled, direct)| pooled != direct);
    parted.is_some_and(|(pooled, _)| pooled.starts_with("E ERROR 25P02"))
        && pooled.last() == direct.last()
}
