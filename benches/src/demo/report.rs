//! The report of the demonstration, and the decision whether it went well.

use crate::demo::credentials::Credentials;
use crate::demo::listeners::{LISTENERS, Notifications};
use crate::demo::observations::{Discrepancies, Seen, Workload, explanation};
use crate::demo::pgimbal::Failover;
use crate::demo::scenario::Events;
use crate::pgbench::percentile;
use std::time::Duration;

/// Everything that the report of the demonstration needs, collected at its end.
pub struct Report<'a> {
    /// How long the demonstration lasted.
    pub elapsed: Duration,
    /// Number of applications.
    pub clients: u32,
    /// The source of the applications' password, which the report names.
    pub credentials: &'a Credentials,
    /// Number of rotations at the source, and of generations of the password that pgimbal accepts.
    pub rotations: (usize, usize),
    /// The events of the primary, as the scenario saw them.
    pub told: &'a Events,
    /// The failover as pgimbal reports it; `None` when there was none.
    pub failover: Option<Failover>,
    /// The counts of what the applications saw.
    pub seen: &'a Seen,
    /// The differences between what the applications were told and what is true.
    pub discrepancies: Discrepancies,
    /// What the clients that listen have heard.
    pub notifications: &'a Notifications,
    /// The times of all transactions in microseconds, sorted.
    pub latencies: &'a [u32],
    /// The greatest number of server connections that each of the two nodes had.
    pub most_servers: [u32; 2],
}

impl Report<'_> {
    /// Prints the report, and returns whether all went well.
    #[must_use]
    pub fn print(&self) -> bool {
        self.work();
        self.listening();
        self.rotation();
        let failover = self.failover.as_ref();
        print!("{}", about_the_failover(self.told, failover, self.seen, &self.discrepancies));
        self.errors();
        let wrongs = self.wrongs();
        println!();
        for wrong in &wrongs {
            println!("  WRONG: {wrong}");
        }
        for words in &self.seen.words {
            println!("         {words}");
        }
        if wrongs.is_empty() {
            println!("  Nothing happened that must not.");
        }
        wrongs.is_empty()
    }

    fn work(&self) {
        let done: u64 = self.seen.done.iter().sum();
        println!("\n  seconds              {:.1}", self.elapsed.as_secs_f64());
        println!("  applications         {}, {} logins", self.clients, self.seen.logins);
        let [n1, n2] = self.most_servers;
        println!("  server connections   {n1} on n1, {n2} on n2 at most");
        println!("  transactions         {done}");
        println!(
            "  latency              p50 {:.2} ms, p99 {:.2} ms",
            percentile(self.latencies, 0.50) / 1e3,
            percentile(self.latencies, 0.99) / 1e3
        );
        let [asked, served] = self.seen.replica_reads;
        let reads = self.seen.done[Workload::Reads as usize] + asked;
        println!(
            "  reads on replicas    {served} of {reads}: {:.0} %, of those that asked for one {:.0} %",
            share(served, reads),
            share(served, asked)
        );
        let own = self.seen.own;
        println!(
            "  reads by auto        {} of {}: {:.0} % on replicas; each looked for its client's own \
             write, {} stale",
            own.on_replicas,
            own.checked,
            share(own.on_replicas, own.checked),
            own.stale
        );
    }

    fn listening(&self) {
        let Notifications { calm, failover, .. } = self.notifications;
        println!(
            "  notifications        {} to {LISTENERS} clients in transaction mode, {} lost; around the \
             failover {}, {} lost",
            calm.due,
            calm.due - calm.heard,
            failover.due,
            failover.due - failover.heard
        );
    }

    fn rotation(&self) {
        let (made, accepted) = self.rotations;
        println!("  password from        {}", self.credentials.name());
        println!(
            "  rotations            {made}, pgimbal took up {}; the applications still use the first \
             password",
            accepted.saturating_sub(1)
        );
    }

    fn errors(&self) {
        let total: u64 = self.seen.errors.values().map(|(count, _)| count).sum();
        println!(
            "  errors               {total} that could not be hidden, {} other",
            self.seen.accidents
        );
        for ((workload, code), (count, message)) in &self.seen.errors {
            println!("    {count:>3} x {code} to {}: {message}", workload.name());
        }
        let mut codes: Vec<&str> = self.seen.errors.keys().map(|(_, code)| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            println!("    {code}: {}", explanation(code).unwrap_or_default());
        }
    }

    /// What must not have happened, and what must.
    fn wrongs(&self) -> Vec<String> {
        let (rotations, accepted) = self.rotations;
        let through = !self.told.interrupted;
        let [asked, served] = self.seen.replica_reads;
        let Notifications { calm, unordered, .. } = self.notifications;
        let checks = [
            (self.seen.done.contains(&0), "some applications did nothing".to_owned()),
            (
                self.seen.accidents > 0,
                format!("{} errors that nothing explains", self.seen.accidents),
            ),
            (
                self.discrepancies.lost > 0,
                format!("{} acknowledged writes are lost", self.discrepancies.lost),
            ),
            (
                self.discrepancies.twice > 0,
                format!("{} writes were made twice", self.discrepancies.twice),
            ),
            (
                self.discrepancies.unexpected > 0,
                format!(
                    "{} writes are there that were said to be rolled back",
                    self.discrepancies.unexpected
                ),
            ),
            (through && rotations == 0, "the password was never rotated".into()),
            (through && accepted < 2, "pgimbal saw no rotation".into()),
            (through && self.failover.is_none(), "pgimbal saw no failover".into()),
            (
                through && self.told.quarantined.is_none(),
                "the old primary was not quarantined".into(),
            ),
            (through && !self.told.rejoined, "the old primary did not rejoin".into()),
            (asked > 0 && served == 0, "no read came from a replica".into()),
            (
                self.seen.own.stale > 0,
                format!("{} reads did not show an own write", self.seen.own.stale),
            ),
            (
                self.seen.own.checked > 0 && self.seen.own.on_replicas == 0,
                "route = \"auto\" sent no read to a replica".into(),
            ),
            (calm.heard < calm.due, format!("{} notifications are lost", calm.due - calm.heard)),
            (*unordered > 0, format!("{unordered} notifications came twice or behind later ones")),
        ];
        checks.into_iter().filter(|(wrong, _)| *wrong).map(|(_, words)| words).collect()
    }
}

fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 }
}

/// The lines about the primary's end; none when it has not come to that.
fn about_the_failover(
    told: &Events,
    failover: Option<&Failover>,
    seen: &Seen,
    discrepancies: &Discrepancies,
) -> String {
    if told.promoted.is_none() {
        return String::new();
    }
    // One figure, and the one that applications feel: it begins with the kill, and has the
    // noticing, the promotion and pgimbal in it.
    let mut lines = format!(
        "  failover             n1 killed, n2 promoted: for {} ms no write of any application \
         succeeded\n",
        seen.gaps[Workload::Writes as usize].as_millis()
    );
    if let Some(failover) = failover {
        let [held, rerun, failed] = failover.counts;
        lines += &format!(
            "  clients              {held} held, {rerun} run again, {failed} told an error \
             (SHOW FAILOVERS: {})\n",
            failover.way
        );
    }
    lines += &format!(
        "  old primary          {}; {}\n",
        told.quarantined
            .as_ref()
            .map_or("not quarantined".to_owned(), |why| { format!("quarantined: {why}") }),
        if told.rejoined { "rejoined as a replica" } else { "not rejoined" }
    );
    lines += &format!(
        "  acknowledged writes  {}: {} lost, {} doubled; of {} with an unknown outcome {} are \
         there\n",
        discrepancies.acknowledged,
        discrepancies.lost,
        discrepancies.twice,
        discrepancies.unknown[0],
        discrepancies.unknown[1]
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_one_figure_of_the_failover_and_says_what_it_is() {
        let told = Events {
            promoted: Some(Duration::from_millis(1111)),
            quarantined: Some("primary on timeline 1".to_owned()),
            rejoined: true,
            interrupted: false,
        };
        let mut seen = Seen::default();
        seen.gaps = [2222, 3333, 4444, 5555, 6666, 7777].map(Duration::from_millis);
        let failover = Failover { counts: [20, 3, 1], way: "n1 -> n2".to_owned() };
        let text = about_the_failover(&told, Some(&failover), &seen, &Discrepancies::default());
        let figures: Vec<&str> = text.lines().filter(|line| line.contains(" ms ")).collect();
        let [figure] = figures[..] else { panic!("one figure: {text}") };
        let writes = seen.gaps[Workload::Writes as usize].as_millis();
        let defined = format!(
            "n1 killed, n2 promoted: for {writes} ms no write of any application succeeded"
        );
        assert!(figure.ends_with(&defined), "{figure}");
        let others = ["1111", "2222", "3333", "4444", "5555", "6666", "7777"];
        let shown = others.iter().filter(|other| text.contains(**other)).count();
        assert_eq!(shown, 1, "{text}");
        assert_eq!(
            about_the_failover(&Events::default(), None, &seen, &Discrepancies::default()),
            ""
        );
    }
}
