//! A chart of the figures that say most, for a README: readable on a light and on a dark ground.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contenders::Role;
use crate::course::Record;
use crate::loads::{Load, Way};
use crate::measure::Figure;

const WIDTH: u32 = 900;
const PANEL_WIDTH: i32 = 450;
/// Where a panel's bars begin, and how long the longest is, in pixels.
const BARS: i32 = 155;
const LONGEST: f64 = 220.0;
const LINE: i32 = 22;
const TITLE: i32 = 34;
const COLUMNS: usize = 2;
/// Has enough contrast to white and to black.
const TEXT: RGBColor = RGBColor(0x76, 0x7f, 0x8a);
const OURS: RGBColor = RGBColor(0x2f, 0x81, 0xf7);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa4, 0xaf);
const BOUNDS: RGBColor = RGBColor(0xc6, 0x90, 0x26);

struct Panel {
    title: &'static str,
    load: Load,
    figure: Figure,
    divisor: f64,
    decimals: usize,
}

const PANELS: [Panel; 6] = [
    panel(
        "TCP, one flow, client to server, Gbit/s",
        Load::Tcp { flows: 1, way: Way::Up },
        Figure::GbitPerSecond,
        1.0,
        2,
    ),
    panel(
        "TCP, one flow, server to client, Gbit/s",
        Load::Tcp { flows: 1, way: Way::Down },
        Figure::GbitPerSecond,
        1.0,
        2,
    ),
    panel(
        "µs of processor per 64-byte datagram (less is better)",
        Load::Paced { payload: 64 },
        Figure::MachineMicros,
        1.0,
        2,
    ),
    panel(
        "µs per 64-byte datagram in bursts of 8 (less is better)",
        Load::Bursts,
        Figure::MachineMicros,
        1.0,
        2,
    ),
    panel("New TCP connections, 1000/s", Load::Connections, Figure::ConnectionsPerSecond, 1000.0, 1),
    panel(
        "Round trip under load, 99th percentile, µs (less is better)",
        Load::RoundTripLoaded,
        Figure::RoundTrip99,
        1.0,
        0,
    ),
];

const fn panel(title: &'static str, load: Load, figure: Figure, divisor: f64, decimals: usize) -> Panel {
    Panel { title, load, figure, divisor, decimals }
}

/// A bar: whose it is, how long, and whether it is this router's.
struct Bar<'r> {
    name: &'r str,
    role: Role,
    value: f64,
}

impl Panel {
    fn bars<'r>(&self, records: &'r [Record]) -> Vec<Bar<'r>> {
        let shown = records.iter().filter(|record| record.role != Role::Direct);
        shown
            .filter_map(|record| {
                let value = record.summary(self.load, self.figure)?.median / self.divisor;
                Some(Bar { name: record.name, role: record.role, value })
            })
            .collect()
    }
}

/// The chart as SVG. Panels without a figure are left out.
pub(crate) fn chart(records: &[Record]) -> Result<String> {
    let panels: Vec<_> = PANELS
        .iter()
        .map(|panel| (panel, panel.bars(records)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    anyhow::ensure!(!panels.is_empty(), "nothing was measured that the chart shows");
    let rows: Vec<_> = panels.chunks(COLUMNS).collect();
    let heights: Vec<_> =
        rows.iter().map(|row| height(row.iter().map(|(_, bars)| bars.len()).max())).collect();
    let mut text = String::new();
    {
        let size = (WIDTH, u32::try_from(heights.iter().sum::<i32>())?);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let mut top = 0;
        for (row, height) in rows.iter().zip(heights) {
            for ((panel, bars), left) in row.iter().zip((0..).step_by(PANEL_WIDTH.unsigned_abs() as usize)) {
                draw(&area, panel, bars, (left, top))
                    .map_err(|error| anyhow!("drawing the chart: {error}"))?;
            }
            top += height;
        }
        area.present().map_err(|error| anyhow!("drawing the chart: {error}"))?;
    }
    Ok(text)
}

fn height(bars: Option<usize>) -> i32 {
    TITLE + LINE * i32::try_from(bars.unwrap_or_default()).unwrap_or_default() + 14
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn draw(area: &Area<'_>, panel: &Panel, bars: &[Bar<'_>], (left, top): (i32, i32)) -> Result<()> {
    let style =
        |size: i32, place| ("sans-serif", size).into_font().color(&TEXT).pos(Pos::new(place, VPos::Center));
    let put = |text: String, size, place, at| area.draw(&Text::new(text, at, style(size, place)));
    put(panel.title.to_owned(), 17, HPos::Left, (left + 10, top + TITLE / 2))
        .map_err(|error| anyhow!("{error}"))?;
    let longest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    for (bar, line) in bars.iter().zip(0..) {
        let middle = top + TITLE + LINE * line + LINE / 2;
        let end = left + BARS + pixels(bar.value, longest);
        let color = match bar.role {
            Role::Sessions | Role::Exclusive | Role::Beside => OURS,
            Role::Bare | Role::Forwarding | Role::Direct => BOUNDS,
            Role::Other => OTHERS,
        };
        let shape = Rectangle::new([(left + BARS, middle - 7), (end, middle + 7)], color.filled());
        area.draw(&shape).map_err(|error| anyhow!("{error}"))?;
        put(bar.name.to_owned(), 15, HPos::Right, (left + BARS - 8, middle))
            .map_err(|error| anyhow!("{error}"))?;
        let value = format!("{:.*}", panel.decimals, bar.value);
        put(value, 15, HPos::Left, (end + 6, middle)).map_err(|error| anyhow!("{error}"))?;
    }
    Ok(())
}

/// At least one, so that each bar is seen.
fn pixels(value: f64, longest: f64) -> i32 {
    let share = if longest > 0.0 { (value / longest).clamp(0.0, 1.0) } else { 0.0 };
    #[allow(clippy::cast_possible_truncation, reason = "at most the length of the longest bar")]
    let length = (share * LONGEST).round() as i32;
    length.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::tests::record;

    #[test]
    fn bars_are_as_long_as_their_figures_are_large() {
        assert_eq!(
            (pixels(10.0, 10.0), pixels(5.0, 10.0), pixels(0.0, 10.0), pixels(0.0, 0.0)),
            (220, 110, 1, 1)
        );
    }

    #[test]
    fn the_chart_names_each_contender_and_shows_its_figure() {
        let load = Load::Tcp { flows: 1, way: Way::Up };
        let ours = record("this router", Role::Sessions, &[(load, Figure::GbitPerSecond, &[12.34])]);
        let other = record("tayga", Role::Other, &[(load, Figure::GbitPerSecond, &[3.21])]);
        let direct = record("direct", Role::Direct, &[(load, Figure::GbitPerSecond, &[99.0])]);
        let text = chart(&[ours, other, direct]).unwrap();
        for expected in ["<svg", "this router", "tayga", "12.34", "3.21", "</svg>"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        assert!(!text.contains("99.00"), "what the load alone costs is no contender");
        assert_eq!(text.matches("<rect").count(), 2, "a bar each, and no ground");
        assert!(!text.contains("bursts"), "panels without figures are left out");
    }

    #[test]
    fn without_a_figure_there_is_no_chart() {
        assert!(chart(&[record("this router", Role::Sessions, &[])]).is_err());
    }
}
