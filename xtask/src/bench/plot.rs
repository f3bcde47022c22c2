//! Draws the exits of a boot over time, as SVG.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::trace::Sample;

const SIZE: (u32, u32) = (960, 460);
const FONT: &str = "sans-serif";

/// A line of the picture: its label, its value for a sample, and its width.
type Series = (&'static str, fn(&Sample) -> u64, u32);

/// A boot in a lane.
#[derive(Debug)]
pub struct Boot {
    /// The name of the lane.
    pub name: String,
    /// The numbers of exits over time.
    pub samples: Vec<Sample>,
    /// Instructions from GRUB's last command to the shell, bare and under Vidar.
    pub instructions: (u64, u64),
}

/// Draws each boot in a color of its own. One line has all exits, the other those that are neither CPUID nor the
/// hypercalls by which the guest asks for the numbers of exits.
pub fn draw(boots: &[Boot]) -> Result<String> {
    let mut svg = String::new();
    draw_on(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), boots)
        .map_err(|error| anyhow!("cannot draw the exits: {error}"))?;
    Ok(svg.trim_end().to_owned() + "\n")
}

fn draw_on(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    boots: &[Boot],
) -> Result<(), Box<dyn std::error::Error>> {
    area.fill(&WHITE)?;
    let samples = || boots.iter().flat_map(|boot| &boot.samples);
    let end = millions(samples().map(|sample| sample.at).max().unwrap_or(1));
    let top = samples().map(|sample| sample.all).max().unwrap_or(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption("Exits of a boot, from Vidar's start to the shell", (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end * 1.02, 0.0..top * 1.25)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("instructions, in millions")
        .y_desc("exits")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .draw()?;
    for (boot, color) in boots.iter().zip([BLUE, RED]) {
        let series: [Series; 2] =
            [("all", |sample| sample.all, 2), ("all but CPUID and vidarctl", |sample| sample.others, 1)];
        for (what, value, width) in series {
            let last = boot.samples.last().map_or(0, value);
            let points = steps(&boot.samples, value);
            let style = color.stroke_width(width);
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(format!("{}, {what}: {last} exits", boot.name))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(30)
        .label_font((FONT, 14))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    // The bare machine has no exits and so no line, but its number of instructions is given.
    let style = (FONT, 14).into_text_style(area).pos(Pos::new(HPos::Right, VPos::Top));
    for (boot, row) in boots.iter().zip(0..) {
        let (bare, vidar) = boot.instructions;
        let text = format!(
            "{}: {:.1} million instructions bare, {:.1} million under Vidar",
            boot.name,
            millions(bare),
            millions(vidar)
        );
        area.draw_text(&text, &style, (SIZE.0 as i32 - 24, 52 + 20 * row))?;
    }
    area.present()?;
    Ok(())
}

/// Returns the corners of a line that is constant between two changes of the value.
fn steps(samples: &[Sample], value: fn(&Sample) -> u64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        let point = (millions(sample.at), value(sample) as f64);
        let changes = points.last().is_none_or(|last| last.1 != point.1);
        // The sample before a change is where the constant part ends.
        if changes && let Some(before) = index.checked_sub(1).and_then(|before| samples.get(before)) {
            points.push((millions(before.at), value(before) as f64));
        }
        if changes || index + 1 == samples.len() {
            points.push(point);
        }
    }
    points
}

fn millions(count: u64) -> f64 {
    count as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: u64, all: u64) -> Sample {
        Sample { at: at * 1_000_000, all, others: 3 }
    }

    #[test]
    fn a_constant_value_makes_no_points() {
        let samples =
            [(0, 0), (1, 0), (2, 5), (3, 5), (4, 5), (5, 6), (6, 6)].map(|(at, all)| sample(at, all));
        let expected = [(0.0, 0.0), (1.0, 0.0), (2.0, 5.0), (4.0, 5.0), (5.0, 6.0), (6.0, 6.0)];
        assert_eq!(steps(&samples, |sample| sample.all), expected);
        assert!(steps(&[], |sample| sample.all).is_empty());
    }

    #[test]
    fn the_picture_has_the_names_and_numbers_of_the_lanes() {
        let boot = |name: &str, exits| Boot {
            name: name.to_owned(),
            samples: vec![sample(0, 0), sample(9, exits)],
            instructions: (1_531_900_000, 1_535_400_000),
        };
        let svg = draw(&[boot("Intel VT-x", 950), boot("AMD-V", 990)]).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        for text in [
            "Intel VT-x, all: 950 exits",
            "AMD-V, all but CPUID and vidarctl: 3 exits",
            "AMD-V: 1531.9 million instructions bare, 1535.4 million under Vidar",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(draw(&[]).is_ok());
    }
}
