//! The trace in the Trace Event format, which ui.perfetto.dev and chrome://tracing open: `vidarctl trace --json`.
//!
//! Each exit is a complete event ("X") on the track of its CPU, as long as Vidar took for it. Its time is the
//! time-stamp counter in microseconds. The guest's ftrace has the same clock if its `trace_clock` is `x86-tsc`; it
//! counts in ticks, of which `tsc_per_microsecond` of the other data make a microsecond.

use super::Exit;
use super::clock::Clock;
use super::symbols::Symbols;
use crate::json::string;

/// The number of the process to which the tracks of the CPUs belong.
const PROCESS: u32 = 1;

/// Returns the exits as a whole JSON object, for a machine with so many CPUs.
pub fn object(exits: &[Exit], cpus: u64, clock: Clock, symbols: &Symbols) -> String {
    let mut events = tracks(cpus);
    events.extend(exits.iter().map(|exit| event(exit, clock, symbols)));
    format!(
        "{{\"traceEvents\":[\n{}\n],\"displayTimeUnit\":\"ns\",\"otherData\":{{\"clock\":\"x86-tsc\",\
         \"tsc_per_microsecond\":\"{:.6}\"}}}}\n",
        events.join(",\n"),
        clock.ticks_per_microsecond()
    )
}

/// Returns the events that name the process and the tracks of so many CPUs.
pub fn tracks(cpus: u64) -> Vec<String> {
    let name = |what: &str, cpu: u64, name: &str| {
        format!(
            "{{\"name\":\"{what}\",\"ph\":\"M\",\"pid\":{PROCESS},\"tid\":{},\"args\":{{\"name\":{}}}}}",
            track(cpu),
            string(name)
        )
    };
    let mut events = vec![name("process_name", 0, "Vidar")];
    events.extend((0..cpus).map(|cpu| name("thread_name", cpu, &format!("CPU {cpu}"))));
    events
}

/// Returns the event of an exit.
pub fn event(exit: &Exit, clock: Clock, symbols: &Symbols) -> String {
    let Exit { cpu, record } = exit;
    format!(
        "{{\"name\":{},\"cat\":{},\"ph\":\"X\",\"ts\":{:.3},\"dur\":{:.3},\"pid\":{PROCESS},\"tid\":{},\"args\":\
         {{\"rip\":\"{:#x}\",\"where\":{},\"tsc\":\"{}\"}}}}",
        string(&exit.what()),
        string(record.kind.name()),
        clock.microseconds(record.tsc),
        clock.microseconds(record.ticks.into()),
        track(*cpu),
        record.rip,
        string(&symbols.place(record.rip).to_string()),
        record.tsc
    )
}

/// Returns the number of a CPU's track. Viewers take track 0 for one that idles.
fn track(cpu: u64) -> u64 {
    cpu + 1
}

#[cfg(test)]
mod tests {
    use vidar_abi::{ExitKind, Record};

    use super::*;

    #[test]
    fn each_cpu_has_a_track_and_each_exit_an_event() {
        let record =
            Record { tsc: 12_345_678, rip: 0x40_1000, ticks: 150, kind: ExitKind::Wrmsr, detail: 0x1b };
        let exits = [Exit { cpu: 1, record }];
        let json = object(&exits, 2, Clock::new(100.0), &Symbols::default());
        assert_eq!(
            json,
            "{\"traceEvents\":[\n\
             {\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{\"name\":\"Vidar\"}},\n\
             {\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":1,\"args\":{\"name\":\"CPU 0\"}},\n\
             {\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":2,\"args\":{\"name\":\"CPU 1\"}},\n\
             {\"name\":\"wrmsr MSR 0x1b\",\"cat\":\"wrmsr\",\"ph\":\"X\",\"ts\":123456.780,\"dur\":1.500,\"pid\":1,\"tid\":2,\
             \"args\":{\"rip\":\"0x401000\",\"where\":\"user program 0x401000\",\"tsc\":\"12345678\"}}\n\
             ],\"displayTimeUnit\":\"ns\",\"otherData\":{\"clock\":\"x86-tsc\",\"tsc_per_microsecond\":\"100.000000\"}}\n"
        );
    }
}
