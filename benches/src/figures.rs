//! The figures behind `BENCH=figures make bench`: what rotation, failover and routing cost, and how
//! long they take, each against its bound.

pub mod failover;
pub mod listen;
pub mod logins;
pub mod overhead;
pub mod relay;
pub mod roles;
pub mod rotating;
pub mod rotation;
pub mod routing;

use std::time::Duration;

/// Time limit of anything that a figure waits for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time to the next rotation when none should be near.
const FAR: Duration = Duration::from_secs(86_400);

/// One measured value with its bound, a row of the table.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What is measured, as the first column of the table.
    pub what: String,
    /// The bound with its unit, as text.
    pub bound: String,
    /// The measured value with its unit, as text.
    pub measured: String,
    /// Whether the value is within the bound.
    pub holds: bool,
}

impl Figure {
    /// A figure of a time that may be at most `bound`; the greatest of `times` counts.
    #[must_use]
    pub fn time(what: &str, bound: Duration, times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let greatest = sorted.last().copied().unwrap_or(Duration::MAX);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        Self {
            what: what.to_owned(),
            bound: format!("{} ms", bound.as_millis()),
            measured: format!(
                "{} ms at most, median {} ms ({} times)",
                greatest.as_millis(),
                median.as_millis(),
                times.len()
            ),
            holds: greatest <= bound,
        }
    }

    /// A figure of a number with this unit that may be at most `bound`.
    #[must_use]
    pub fn number(what: &str, unit: &str, bound: f64, value: f64) -> Self {
        Self {
            what: what.to_owned(),
            bound: format!("{bound} {unit}"),
            measured: format!("{value:.2} {unit}"),
            holds: value <= bound,
        }
    }

    /// A figure of a number with this unit that must be at least `bound`.
    #[must_use]
    pub fn at_least(what: &str, unit: &str, bound: f64, value: f64) -> Self {
        Self {
            what: what.to_owned(),
            bound: format!("at least {bound} {unit}"),
            measured: format!("{value:.0} {unit}"),
            holds: value >= bound,
        }
    }

    /// A number with this unit that has no bound: it is for comparison.
    #[must_use]
    pub fn unbounded(what: &str, unit: &str, value: f64) -> Self {
        let bound = "none".to_owned();
        Self { what: what.to_owned(), bound, measured: format!("{value:.2} {unit}"), holds: true }
    }

    /// A figure of the growth from the median of `before` to that of `after`, in percent, which may
    /// be at most `bound`. `unit` is that of the values.
    #[must_use]
    pub fn growth(what: &str, unit: &str, bound: f64, before: &[f64], after: &[f64]) -> Self {
        let (old, new) = (median(before), median(after));
        let percent = if old > 0.0 { (new / old - 1.0) * 100.0 } else { f64::MAX };
        Self {
            what: what.to_owned(),
            bound: format!("+{bound} %"),
            measured: format!(
                "{percent:+.1} % ({old:.2} -> {new:.2} {unit}, medians of {})",
                after.len()
            ),
            holds: percent <= bound,
        }
    }

    /// A figure that could not be measured, for the reason `why`; it does not hold.
    #[must_use]
    pub fn missing(what: &str, why: &str) -> Self {
        Self {
            what: what.to_owned(),
            bound: String::new(),
            measured: format!("not measured: {why}"),
            holds: false,
        }
    }
}

/// The figures as a table of Markdown.
#[must_use]
pub fn table(figures: &[Figure]) -> String {
    let mut text = "| figure | bound | measured | holds |\n|---|---|---|---|\n".to_owned();
    for figure in figures {
        let holds = if figure.holds { "yes" } else { "NO" };
        let Figure { what, bound, measured, .. } = figure;
        text.push_str(&format!("| {what} | {bound} | {measured} | {holds} |\n"));
    }
    text
}

/// The median of the values; of an even number, the upper of the middle two.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_time_is_held_against_the_bound() {
        let [short, long] = [100, 400].map(Duration::from_millis);
        assert!(Figure::time("t", long, &[short, long]).holds);
        assert!(!Figure::time("t", short, &[short, long]).holds);
        assert!(!Figure::time("t", short, &[]).holds);
    }

    #[test]
    fn growth_is_that_of_medians() {
        let figure = Figure::growth("g", "us", 10.0, &[10.0, 10.0, 90.0], &[10.5, 1.0, 10.9]);
        assert!(figure.holds && figure.measured.starts_with("+5.0 %"), "{figure:?}");
        assert!(!Figure::growth("g", "us", 3.0, &[10.0], &[11.0]).holds);
    }
}
