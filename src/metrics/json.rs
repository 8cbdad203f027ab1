//! Metrics as a JSON array, and the JSON strings that both it and the status need.

use std::fmt::{Display, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value as Json;

use super::instruments::Timing;
use super::registry::{Sample, Value};
use super::reservoir::PERCENTILES;

/// Renders `samples` as an array of objects with `hostname`, `metric`, `timestamp` (Unix
/// seconds) and `value`. A timer makes eight of them.
pub fn render(samples: &[Sample], prefix: &str, hostname: &str, now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut array = Array {
        text: String::from("["),
        prefix,
        hostname: quote(hostname),
        seconds,
    };
    for sample in samples {
        let name = sample.declaration.name;
        match sample.value {
            Value::Count(count) => array.push(name, "", count),
            Value::Timer(Timing { summary, .. }) => {
                array.push(name, ".count", summary.count);
                array.push(name, ".min", summary.min);
                array.push(name, ".max", summary.max);
                array.push(name, ".mean", summary.mean);
                // This format goes up to the 99th.
                for ((_, percent), value) in PERCENTILES.iter().zip(summary.percentiles).take(4) {
                    array.push(name, &format!(".{percent}-percentile"), value);
                }
            }
        }
    }
    array.text.push(']');
    array.text
}

/// Replaces `<`, `>` and `&` by their escapes in a JSON text, so that no browser can take
/// it for markup. Outside of strings JSON has none of them.
pub fn escape_markup(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn quote(text: &str) -> String {
    escape_markup(&Json::from(text).to_string())
}

struct Array<'a> {
    text: String,
    prefix: &'a str,
    hostname: String,
    seconds: u64,
}

impl Array<'_> {
    /// Adds one entry. Numbers are shown by their own `Display`: the shortest decimal that
    /// reads back alike, never an exponent, no fraction where there is none.
    fn push(&mut self, name: &str, suffix: &str, value: impl Display) {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        let metric = quote(&format!("{}.{name}{suffix}", self.prefix));
        let (hostname, seconds) = (&self.hostname, self.seconds);
        let _ = write!(
            self.text,
            r#"{{"hostname":{hostname},"metric":{metric},"timestamp":{seconds},"value":{value}}}"#
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Registry;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_795_562_061)
    }

    #[test]
    fn a_fresh_registry_has_all_names_with_value_zero() {
        let text = render(&Registry::new().samples(), "ghostunnel", "vm", now());
        let entries: Vec<Json> = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(entries.len(), 6 + 2 * 8);
        assert!(entries.iter().all(|entry| entry["value"] == 0), "{text}");
        let first =
            r#"[{"hostname":"vm","metric":"ghostunnel.accept.total","timestamp":1795562061,"value":0}"#;
        assert!(text.starts_with(first), "{text}");
    }

    #[test]
    fn numbers_have_no_exponent_and_no_needless_fraction() {
        let registry = Registry::new();
        registry.connection_accepted();
        registry.connection_closed(Duration::from_nanos(4_975_959));
        registry.connection_closed(Duration::from_nanos(19_400_156_000_000_000));
        let text = render(&registry.samples(), "p", "vm", now());
        for expected in [
            r#""p.conn.open","timestamp":1795562061,"value":-1}"#,
            r#""p.conn.lifetime.count","timestamp":1795562061,"value":2}"#,
            r#""p.conn.lifetime.min","timestamp":1795562061,"value":4975959}"#,
            r#""p.conn.lifetime.mean","timestamp":1795562061,"value":9700078002487980}"#,
            r#""p.conn.lifetime.99-percentile","timestamp":1795562061,"value":19400156000000000}"#,
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        registry.handshake_took(Duration::from_nanos(12_188_057));
        registry.handshake_took(Duration::from_nanos(12_188_058));
        let text = render(&registry.samples(), "p", "vm", now());
        let expected = r#""p.conn.handshake.mean","timestamp":1795562061,"value":12188057.5}"#;
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn prefix_and_host_name_may_be_anything() {
        let text = render(&Registry::new().samples(), "a\"<b", "h&\\", now());
        let entries: Vec<Json> = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(entries[0]["metric"], "a\"<b.accept.total");
        assert_eq!(entries[0]["hostname"], "h&\\");
        assert!(!text.contains(['<', '&']));
        let bare = render(&Registry::new().samples(), "", "vm", now());
        assert!(bare.contains(r#""metric":".accept.total""#));
    }
}
