//! Metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::Write;

/// What the answer says it is.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a value moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, while the daemon runs.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    /// Its name in the format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// One metric, with a value for each set of labels.
#[derive(Clone, PartialEq, Debug)]
pub struct Family {
    /// Its name, with its unit and, of a counter, `_total` at the end.
    pub name: &'static str,
    /// A sentence for people.
    pub help: &'static str,
    /// How its values move.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Names and values of its labels.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Family {
    /// A metric of one value without labels.
    pub fn single(name: &'static str, kind: Kind, help: &'static str, value: f64) -> Self {
        Self { name, help, kind, samples: vec![Sample { labels: Vec::new(), value }] }
    }
}

/// The page.
pub(crate) fn render(families: &[Family]) -> String {
    let mut page = String::new();
    for Family { name, help, kind, samples } in families {
        // Writing to a string does not fail.
        let _ = writeln!(page, "# HELP {name} {}", help.replace('\\', "\\\\").replace('\n', "\\n"));
        let _ = writeln!(page, "# TYPE {name} {}", kind.name());
        for Sample { labels, value } in samples {
            page.push_str(name);
            for (at, (label, text)) in labels.iter().enumerate() {
                page.push(if at == 0 { '{' } else { ',' });
                let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(page, "{label}=\"{text}\"");
            }
            if !labels.is_empty() {
                page.push('}');
            }
            let _ = writeln!(page, " {value}");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_help_a_type_and_a_line_for_each_value() {
        let labelled = |reason: &str, value| Sample {
            labels: vec![("reason", reason.to_owned()), ("shard", "0".to_owned())],
            value,
        };
        let families = [
            Family::single("nexusd_topics", Kind::Gauge, "Topics now.", 3.0),
            Family {
                name: "nexusd_dropped_messages_total",
                help: "Dropped\nmessages \\.",
                kind: Kind::Counter,
                samples: vec![labelled("slow", 18_446_744_073_709.0), labelled("a\"b\\c\n", 0.5)],
            },
        ];
        assert_eq!(
            render(&families),
            "# HELP nexusd_topics Topics now.\n\
             # TYPE nexusd_topics gauge\n\
             nexusd_topics 3\n\
             # HELP nexusd_dropped_messages_total Dropped\\nmessages \\\\.\n\
             # TYPE nexusd_dropped_messages_total counter\n\
             nexusd_dropped_messages_total{reason=\"slow\",shard=\"0\"} 18446744073709\n\
             nexusd_dropped_messages_total{reason=\"a\\\"b\\\\c\\n\",shard=\"0\"} 0.5\n"
        );
    }
}
