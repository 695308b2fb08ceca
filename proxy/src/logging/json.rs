//! A line of JSON for each event. tracing-subscriber's own makes a text of a list; here it is one.

use std::fmt;

use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats an event as one object: timestamp, level, its fields in their order, target.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let line = serde_json::to_string(&Line { timestamp: &timestamp, event });
        writeln!(writer, "{}", line.map_err(|_| fmt::Error)?)
    }
}

struct Line<'a> {
    timestamp: &'a str,
    event: &'a Event<'a>,
}

impl Serialize for Line<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let metadata = self.event.metadata();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", self.timestamp)?;
        map.serialize_entry("level", metadata.level().as_str())?;
        let mut fields = Fields { map, failed: None };
        self.event.record(&mut fields);
        if let Some(error) = fields.failed {
            return Err(error);
        }
        let mut map = fields.map;
        map.serialize_entry("target", metadata.target())?;
        map.end()
    }
}

/// Puts the fields of an event into a map.
struct Fields<M: SerializeMap> {
    map: M,
    failed: Option<M::Error>,
}

impl<M: SerializeMap> Fields<M> {
    fn put(&mut self, field: &Field, value: &impl Serialize) {
        if self.failed.is_none() {
            self.failed = self.map.serialize_entry(field.name(), value).err();
        }
    }
}

impl<M: SerializeMap> Visit for Fields<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &value);
    }

    /// tracing has no lists: they come as what Debug prints, which for texts and numbers is JSON.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match text.starts_with('[').then(|| serde_json::from_str::<Vec<Value>>(&text)) {
            Some(Ok(list)) => self.put(field, &list),
            _ => self.put(field, &text),
        }
    }
}
