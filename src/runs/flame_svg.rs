//! Draws folded stacks as one SVG file that needs nothing else: no script, no font, no network.
//!
//! Own code: the usual library brings a license that this tree does not take in. It must not know what the frames are.

use std::fmt::Write as _;

use super::flame::Stack;

const WIDTH: f64 = 1_200.0;
const MARGIN: f64 = 10.0;
const ROW: usize = 18;
const TOP: usize = 56;
/// About the width of a character of the text in a frame.
const CHARACTER: f64 = 7.0;
/// Frames narrower than this are not drawn; they are among the names at the bottom.
const NARROWEST: f64 = 0.1;

/// A frame, and those above it.
#[derive(Debug, Default)]
struct Frame {
    name: String,
    total: u64,
    inside: Vec<usize>,
}

/// The picture. `title` is shown on top.
pub fn svg(title: &str, stacks: &[Stack]) -> String {
    let frames = merged(stacks);
    let total = frames.first().map_or(0, |frame| frame.total);
    let scale = if total == 0 { 0.0 } else { (WIDTH - 2.0 * MARGIN) / total as f64 };
    let mut body = String::new();
    let mut undrawn = Vec::new();
    let mut depth_drawn = 0;
    // Frame, start in microseconds, depth.
    let mut waiting = vec![(0_usize, 0_u64, 0_usize)];
    while let Some((index, start, depth)) = waiting.pop() {
        let Some(frame) = frames.get(index) else { continue };
        let width = frame.total as f64 * scale;
        if width < NARROWEST {
            undrawn.push(format!("{} ({} µs)", frame.name, frame.total));
        } else {
            depth_drawn = depth_drawn.max(depth);
            draw(&mut body, frame, (MARGIN + start as f64 * scale, width), TOP + depth * ROW, total);
        }
        let mut at = start;
        for inner in &frame.inside {
            waiting.push((*inner, at, depth + 1));
            at = at.saturating_add(frames.get(*inner).map_or(0, |inner| inner.total));
        }
    }
    let below = TOP + (depth_drawn + 2) * ROW;
    for (line, name) in undrawn.iter().enumerate() {
        let text = xml(&format!("too short to be drawn, or of unknown duration: {name}"));
        let _ = writeln!(body, "<text x=\"{MARGIN}\" y=\"{}\">{text}</text>", below + line * ROW);
    }
    let height = below + undrawn.len() * ROW + ROW;
    let title = xml(title);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" \
         height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"12\">\n<title>{title}\
         </title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fdfdfb\"/>\n<text x=\"{MARGIN}\" y=\"24\" \
         font-size=\"16\">{title}</text>\n<text x=\"{MARGIN}\" y=\"44\" fill=\"#666\">width is time; what ran side by side \
         stands side by side; point at a frame for its figures</text>\n{body}</svg>\n"
    )
}

fn draw(body: &mut String, frame: &Frame, (x, width): (f64, f64), y: usize, total: u64) {
    let share = frame.total as f64 * 100.0 / total.max(1) as f64;
    let room = ((width - 4.0) / CHARACTER).max(0.0).floor();
    let fits = frame.name.chars().count() as f64 <= room;
    let shown: String = match fits {
        true => frame.name.clone(),
        // At least a letter and the mark that more follows.
        false if room >= 2.0 => {
            let kept = frame.name.chars().enumerate().take_while(|(at, _)| ((at + 1) as f64) < room);
            kept.map(|(_, c)| c).chain(['…']).collect()
        }
        false => String::new(),
    };
    let _ = writeln!(
        body,
        "<g><title>{}: {} µs ({share:.2} %)</title><rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" rx=\"2\" \
         fill=\"{}\" stroke=\"#fff\" stroke-width=\"0.5\"/><text x=\"{:.2}\" y=\"{}\">{}</text></g>",
        xml(&frame.name),
        frame.total,
        ROW - 1,
        colour(&frame.name),
        x + 3.0,
        y + 13,
        xml(&shown),
    );
}

/// Stacks with the same beginning share its frames. The first frame is that of everything.
fn merged(stacks: &[Stack]) -> Vec<Frame> {
    let mut frames = vec![Frame { name: "all".to_owned(), ..Frame::default() }];
    let mut known = std::collections::HashMap::<(usize, &str), usize>::new();
    for (names, micros) in stacks {
        let mut at = 0;
        for name in std::iter::once(None).chain(names.iter().map(Some)) {
            if let Some(name) = name {
                let next = frames.len();
                let index = *known.entry((at, name)).or_insert(next);
                if index == next {
                    frames.push(Frame { name: name.clone(), ..Frame::default() });
                    if let Some(outer) = frames.get_mut(at) {
                        outer.inside.push(index);
                    }
                }
                at = index;
            }
            if let Some(frame) = frames.get_mut(at) {
                frame.total = frame.total.saturating_add(*micros);
            }
        }
    }
    frames
}

/// Models blue, tools green, the rest warm; the same name always the same.
fn colour(name: &str) -> String {
    let hue = match name.split(':').next() {
        Some("llm") => 210,
        Some("tool") => 140,
        _ => 25,
    };
    let sum = name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    format!("hsl({}, 70%, {}%)", hue + sum % 20, 68 + sum / 20 % 12)
}

/// Text that can stand in XML: what XML does not know at all is replaced.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(names: &[&str], micros: u64) -> Stack {
        (names.iter().map(|name| (*name).to_owned()).collect(), micros)
    }

    #[test]
    fn every_frame_is_named_and_nothing_is_loaded_from_elsewhere() {
        let picture = svg(
            "run <1>",
            &[stack(&["g"], 10), stack(&["g", "a & b"], 50), stack(&["g", "c", "llm:m"], 40), stack(&["g", "open"], 0)],
        );
        for part in [
            "run &lt;1&gt;",
            "<title>all: 100 µs (100.00 %)",
            "<title>a &amp; b: 50 µs (50.00 %)",
            "<title>llm:m: 40 µs",
            "open (0 µs)",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        for part in ["<script", "href", "url("] {
            assert!(!picture.contains(part), "{part}");
        }
        assert_eq!(picture.matches("<g>").count(), picture.matches("</g>").count());
        assert_eq!(picture.matches("http").count(), 1, "the name of the format alone");
    }

    #[test]
    fn a_run_without_time_is_drawn_as_names() {
        assert!(svg("empty", &[]).contains("all (0 µs)"));
        assert!(svg("no time", &[stack(&["a"], 0)]).contains("a (0 µs)"));
    }

    #[test]
    fn what_xml_does_not_know_is_replaced() {
        assert_eq!(xml("a\u{1b}<\u{ffff}"), "a\u{fffd}&lt;\u{fffd}");
    }

    #[test]
    fn frames_lie_inside_the_one_below() {
        let frames = merged(&[stack(&["a"], 1), stack(&["a", "b"], 2), stack(&["c"], 4)]);
        let told: Vec<_> = frames.iter().map(|frame| (frame.name.as_str(), frame.total)).collect();
        assert_eq!(told, [("all", 7), ("a", 3), ("b", 2), ("c", 4)]);
    }
}
