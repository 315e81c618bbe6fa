//! Text for people. What comes from records is bounded, and cannot steer a terminal.

/// At most `width` characters; what is not printable is escaped.
pub(super) fn plain(text: &str, width: usize) -> String {
    let mut shown = String::new();
    let mut left = width;
    for c in text.chars() {
        let part = if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
        let length = part.chars().count();
        if length > left {
            // Room for the mark is made by what was shown last.
            shown.pop();
            shown.push('…');
            break;
        }
        left -= length;
        shown.push_str(&part);
    }
    shown
}

/// How long ago, roughly.
pub(super) fn age(then_ms: Option<i64>, now_ms: i64) -> String {
    let Some(seconds) = then_ms.map(|then| now_ms.saturating_sub(then).max(0) / 1_000) else { return "?".to_owned() };
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Columns as wide as their widest cell; the last one is not filled up.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, width))| if column + 1 == columns { cell.clone() } else { format!("{cell:<width$}") })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_records_is_bounded_and_harmless() {
        assert_eq!(plain("käse", 10), "käse");
        assert_eq!(plain("0123456789", 10), "0123456789");
        assert_eq!(plain("0123456789a", 10), "012345678…");
        assert_eq!(plain("a\u{1b}[31m\n", 40), "a\\u{1b}[31m\\u{a}");
        assert_eq!(plain("", 0), "");
    }

    #[test]
    fn ages_are_told_in_the_unit_that_fits() {
        let now = 1_000_000_000_000;
        let ages = [0, 119, 120, 7_199, 7_200, 172_800].map(|seconds| age(Some(now - seconds * 1_000), now));
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "2d"]);
        assert_eq!((age(None, now), age(Some(now + 5), now)), ("?".into(), "0s".into()));
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [["a", "käse", "x"], ["bbb", "c", "y"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "a    käse  x\nbbb  c     y\n");
    }
}
