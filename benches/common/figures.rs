//! Numbers: CPU time and memory of a process, percentiles, and how they are printed.

use std::fs;

use super::Result;

/// CPU seconds that a process has used, user and system, all its threads.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; the fields after it do not.
    let fields: Vec<_> = stat.rsplit_once(')').ok_or("unreadable stat")?.1.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).ok_or("short stat")?.parse::<f64>()?) };
    // Linux counts these in hundredths of a second on every platform that we build for.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// Resident memory of a process, in KiB.
pub fn rss_kib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Counts of values with a relative error below 2 percent.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

const SUB_BITS: u32 = 6;

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; 64 << SUB_BITS], count: 0 }
    }
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: u64) {
        let exponent = (64 - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
        let index = ((exponent as usize) << SUB_BITS) + (value >> exponent) as usize;
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket += 1;
            self.count += 1;
        }
    }

    /// The value below which this share (0 to 1) lies.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let exponent = (index >> SUB_BITS).saturating_sub(1);
                return ((index - (exponent << SUB_BITS)) as u64) << exponent;
            }
        }
        0
    }

    /// How many values there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Median and 99th percentile of microseconds, in milliseconds.
    pub fn milliseconds(&self) -> String {
        let ms = |share| self.quantile(share) as f64 / 1_000.0;
        format!("p50 {:.2} ms, p99 {:.2} ms", ms(0.5), ms(0.99))
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digit.is_ascii_digit() {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Prints whether a figure keeps its limit.
pub fn verdict(what: &str, figure: f64, limit: f64, at_most: bool) {
    let kept = if at_most { figure <= limit } else { figure >= limit };
    let sign = if at_most { "at most" } else { "at least" };
    println!("    {} {what}: {figure:.2}, asked {sign} {limit:.2}", if kept { "ok  " } else { "MISS" });
}
