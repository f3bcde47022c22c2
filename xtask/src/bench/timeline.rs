//! Draws a trace as SVG: each exit as a point, by the time at which it came and the time that Vidar took.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow, ensure};
use plotters::prelude::*;

use crate::test::lane::Lane;
use crate::test::trace::events::{self, Traced};
use crate::test::{Tools, trace};

const SIZE: (u32, u32) = (960, 560);
const FONT: &str = "sans-serif";
/// The number of CPUs of the machine that is drawn.
const CPUS: u32 = 2;

/// The colors of the kinds, from the most frequent one on. They differ in brightness too.
const COLORS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(255, 157, 30),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(90, 90, 90),
];

/// Boots Linux with a trace on two CPUs, and returns the picture of the exits that the trace has at the shell.
pub fn picture(tools: &Tools) -> Result<String> {
    // The counter of Bochs counts instructions, so that the picture does not depend on the host.
    let lane = Lane::Vmx;
    let (_running, mut console) = trace::start(lane, CPUS, &lane.folder("bench-timeline"), tools)?;
    let exits = events::read(&console.run("vidarctl trace --json")?)?;
    draw(&exits, &format!("The last exits of a boot with {CPUS} CPUs ({} in Bochs)", lane.extension()))
}

/// Draws the exits, with a part of the picture for each track.
fn draw(exits: &[Traced], caption: &str) -> Result<String> {
    ensure!(!exits.is_empty(), "the trace has no exits");
    let mut svg = String::new();
    draw_on(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), exits, caption)
        .map_err(|error| anyhow!("cannot draw the trace: {error}"))?;
    Ok(svg.trim_end().to_owned() + "\n")
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    exits: &[Traced],
    caption: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let first = exits.iter().map(|exit| exit.tsc).min().unwrap_or(0);
    let since = |exit: &Traced| (exit.tsc - first) as f64 / 1e6;
    let end = exits.iter().map(since).fold(0.0, f64::max).max(0.001);
    let longest = exits.iter().map(|exit| exit.ticks).fold(100.0, f64::max);
    let kinds = kinds(exits);
    let mut tracks: Vec<_> = exits.iter().map(|exit| exit.track.as_str()).collect();
    tracks.sort_unstable();
    tracks.dedup();
    let area = area.titled(caption, (FONT, 20))?;
    for (track, part) in tracks.iter().zip(area.split_evenly((tracks.len(), 1))) {
        let on_track: Vec<_> = exits.iter().filter(|exit| exit.track == *track).collect();
        let mut chart = ChartBuilder::on(&part)
            .caption(format!("{track}: {} exits", on_track.len()), (FONT, 15))
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..end * 1.02, (50.0..longest * 1.5).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .y_labels(4)
            .x_desc("TSC ticks since the first of these exits, in millions")
            .y_desc("ticks in Vidar")
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .label_style((FONT, 13))
            .axis_desc_style((FONT, 14))
            .draw()?;
        for ((kind, count), color) in kinds.iter().zip(COLORS.iter().cycle()) {
            let of_kind = on_track.iter().filter(|exit| exit.kind == *kind);
            let points =
                of_kind.map(|exit| Circle::new((since(exit), exit.ticks.max(50.0)), 3, color.filled()));
            chart
                .draw_series(points)?
                .label(format!("{kind}: {count}"))
                .legend(move |(x, y)| Circle::new((x + 10, y), 4, color.filled()));
        }
        if Some(track) == tracks.first() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleMiddle)
                .legend_area_size(22)
                .label_font((FONT, 13))
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.2))
                .draw()?;
        }
    }
    area.present()?;
    Ok(())
}

/// Returns the kinds with their numbers of exits, the most frequent first.
fn kinds(exits: &[Traced]) -> Vec<(&str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    exits.iter().for_each(|exit| *counts.entry(exit.kind.as_str()).or_default() += 1);
    let mut kinds: Vec<_> = counts.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(kind: &str, cpu: u32, tsc: u64, ticks: f64) -> Traced {
        Traced {
            kind: kind.to_owned(),
            name: kind.to_owned(),
            track: format!("CPU {cpu}"),
            rip: 0,
            place: String::new(),
            tsc,
            ticks,
        }
    }

    #[test]
    fn the_picture_has_a_part_for_each_cpu_and_a_point_for_each_exit() {
        let exits = [
            exit("cpuid", 0, 5_000_000, 130.0),
            exit("cpuid", 0, 7_000_000, 130.0),
            exit("wrmsr", 1, 9_000_000, 400.0),
        ];
        let svg = draw(&exits, "The exits").unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        for text in ["The exits", "CPU 0: 2 exits", "CPU 1: 1 exits", "cpuid: 2", "wrmsr: 1"] {
            assert!(svg.contains(text), "{text}");
        }
        // Beside the points there are two in the legend.
        assert_eq!(svg.matches("<circle").count(), exits.len() + 2);
        assert!(draw(&[], "").is_err());
    }
}
