//! Reads a trace in the Trace Event format, and checks it against what the format's description says of complete events
//! and of metadata events.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The file as a JSON object. Viewers ignore fields that they do not know, so a wrong name would not be seen there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TraceFile {
    trace_events: Vec<Event>,
    display_time_unit: Unit,
    other_data: BTreeMap<String, String>,
}

/// The unit in which a viewer shows times.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Ms,
    Ns,
}

/// An event, by its phase.
#[derive(Debug, Deserialize)]
#[serde(tag = "ph", deny_unknown_fields)]
enum Event {
    /// A complete event, with its time and duration in microseconds.
    X { name: String, cat: String, ts: f64, dur: f64, pid: u32, tid: u32, args: Exit },
    /// A metadata event.
    M { name: MetadataName, pid: u32, tid: u32, args: Named },
}

/// What a metadata event names.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum MetadataName {
    ProcessName,
    ThreadName,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exit {
    rip: String,
    #[serde(rename = "where")]
    place: String,
    tsc: String,
}

/// An exit of the trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Traced {
    /// The kind of the exit.
    pub kind: String,
    /// The kind, and what exited.
    pub name: String,
    /// The name of the track.
    pub track: String,
    /// RIP.
    pub rip: u64,
    /// The function of the kernel, or what the address is otherwise.
    pub place: String,
    /// The time-stamp counter.
    pub tsc: u64,
    /// The ticks of the counter that the exit took.
    pub ticks: f64,
}

/// Reads a trace, and returns the exits in the order of the file. An error says what the format does not allow.
pub fn read(json: &str) -> Result<Vec<Traced>> {
    let file: TraceFile = serde_json::from_str(json.trim()).context("this is not a trace in JSON")?;
    let TraceFile { trace_events, display_time_unit: Unit::Ms | Unit::Ns, other_data } = file;
    let speed = other_data.get("tsc_per_microsecond").context("the speed of the counter is missing")?;
    let speed: f64 = speed.parse().context("the speed of the counter is not a number")?;
    let (mut names, mut ends) = (BTreeMap::new(), BTreeMap::new());
    let mut named = BTreeSet::new();
    let mut exits = Vec::new();
    for event in trace_events {
        match event {
            Event::M { name, pid, tid, args } => {
                if name == MetadataName::ThreadName {
                    ensure!(names.insert((pid, tid), args.name).is_none(), "track {tid} has two names");
                } else {
                    ensure!(named.insert(pid), "process {pid} has two names");
                }
            }
            Event::X { name, cat, ts, dur, pid, tid, args } => {
                ensure!(named.contains(&pid), "process {pid} has no name");
                let track =
                    names.get(&(pid, tid)).with_context(|| format!("track {tid} has no name"))?.clone();
                ensure!(
                    ts.is_finite() && ts >= 0.0 && dur.is_finite() && dur >= 0.0,
                    "{name} is at {ts} for {dur}"
                );
                // Of two complete events on a track, one is after the other or inside of it. Exits are never inside
                // others.
                let before = ends.insert(tid, ts + dur).unwrap_or(0.0);
                ensure!(
                    before <= ts + ROUNDING,
                    "{name} at {ts} begins before the last one ends, at {before}"
                );
                ensure!(name.starts_with(&cat), "{name} is of the category {cat}");
                let rip = args.rip.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
                exits.push(Traced {
                    kind: cat,
                    name,
                    track,
                    rip: rip.context("an address is not a number")?,
                    place: args.place,
                    tsc: args.tsc.parse().context("a time-stamp is not a number")?,
                    ticks: dur * speed,
                });
            }
        }
    }
    Ok(exits)
}

/// Times have three digits after the point.
const ROUNDING: f64 = 0.002;

#[cfg(test)]
mod tests {
    use vidar_abi::{ExitKind, Record};
    use vidarctl::{Clock, Exit, Symbols, trace_events};

    use super::*;

    fn exits() -> Vec<Exit> {
        let record = |number: u64| Record {
            tsc: 1 << 40 | number << 20,
            rip: 0xffff_ffff_8100_0004 + number,
            ticks: 1000 + number as u32,
            kind: ExitKind::ALL[number as usize % ExitKind::COUNT],
            detail: number,
        };
        (0..100).map(|number| Exit { cpu: number % 2, record: record(number) }).collect()
    }

    fn json() -> String {
        let symbols = Symbols::parse("ffffffff81000000 T \"quoted\"\n");
        trace_events(&exits(), 2, Clock::new(2000.0), &symbols)
    }

    #[test]
    fn the_trace_of_vidarctl_follows_the_format() {
        let read = read(&json()).unwrap();
        assert_eq!(read.len(), exits().len());
        for (traced, exit) in read.iter().zip(exits()) {
            assert_eq!((traced.tsc, traced.rip), (exit.record.tsc, exit.record.rip));
            assert_eq!(traced.kind, exit.record.kind.name());
            assert_eq!(traced.track, format!("CPU {}", exit.cpu));
            assert!((traced.ticks - f64::from(exit.record.ticks)).abs() < 2.0, "{traced:?}");
            assert!(traced.place.starts_with("\"quoted\"+0x"));
        }
    }

    #[test]
    fn what_the_format_does_not_allow_is_found() {
        for (from, to) in [
            ("\"ts\":", "\"time\":"),
            ("\"dur\":", "\"dur\":-"),
            ("\"ph\":\"X\"", "\"ph\":\"Y\""),
            ("\"thread_name\"", "\"thread\""),
            ("\"tid\":2,\"args\":{\"name\"", "\"tid\":1,\"args\":{\"name\""),
            ("\"displayTimeUnit\":\"ns\"", "\"displayTimeUnit\":\"us\""),
            ("\"dur\":0.500", "\"dur\":5000000.5"),
            ("\"rip\":\"0x", "\"rip\":\""),
            ("}\n]", "},\n]"),
            (",\"pid\":1", ""),
            ("\"pid\":1", "\"pid\":\"1\""),
            ("traceEvents", "events"),
        ] {
            let good = json();
            let bad = good.replace(from, to);
            assert!(bad != good && read(&bad).is_err(), "{from} -> {to}");
        }
    }
}
