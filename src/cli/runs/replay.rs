//! `dashstream replay`: what was published, once more, at the pace that it had.

use std::io::IsTerminal as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::place::{Place, Which};
use super::source::read;
use super::types::Types;
use super::{Exit, UsageError, note, print_line, seam, show, text};
use crate::config::environment::Environment;
use crate::kafka::records::{End, Start};
use crate::runs::item::{Body, Item};
use crate::runs::json;
use crate::runs::line::{is_error, time_us};
use crate::runs::order::{Pace, Window};

/// Messages of a thread that wait for those that may belong before them, and their bytes.
const WINDOW: (usize, usize) = (256, 8 << 20);
const TURN: Duration = Duration::from_millis(100);

/// Show past messages once more, at the pace that they had
///
/// With --thread the messages come in the order of their numbers; one that lies in the topic more than 256 messages too late is
/// shown where it lies. Without, they come as they are read: in order per partition, and of partitions in turn. Reading ends with
/// what the topic has now.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream replay --thread run-17                       at once
  dashstream replay --thread run-17 --speed 1             as fast as it was
  dashstream replay --thread run-17 --from-checkpoint 8c1f… --speed 10
  dashstream replay --since 2h --until 1h --type error --json

Exit code: 1 when no message is meant, or the checkpoint is not there.")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    types: Types,
    /// How many times as fast as it was: 1 for the original pace. 0: without waiting
    #[arg(long, default_value_t = 0.0, value_parser = speed, allow_negative_numbers = true)]
    speed: f64,
    /// Begin behind this checkpoint of the thread, hexadecimal as `tail --type checkpoint` shows it
    #[arg(long, value_name = "HEX", value_parser = checkpoint, requires = "thread")]
    from_checkpoint: Option<Checkpoint>,
    /// Wait for Enter after each message that tells of an error. Needs a terminal
    #[arg(long)]
    pause_on_error: bool,
    /// One JSON object per message and line, complete
    #[arg(long)]
    json: bool,
}

/// The id of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint(pub(super) Vec<u8>);

pub(super) fn checkpoint(text: &str) -> Result<Checkpoint, String> {
    let digits: Option<Vec<u8>> =
        text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0);
    let digits = digits.ok_or("must be hexadecimal digits, two for each byte")?;
    let byte = |pair: &[u8]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
    Ok(Checkpoint(digits.chunks(2).map(byte).collect()))
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| *speed == 0.0 || (0.001..=1e6).contains(speed));
    speed.ok_or_else(|| "must be 0, or a number from 0.001 to 1000000".to_owned())
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    let on_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if args.pause_on_error && !on_terminal {
        let why =
            "--pause-on-error waits for somebody at a terminal, and here is none; leave it out, or use --type error";
        return Err(UsageError(why.to_owned()).into());
    }
    let config = args.place.load(environment)?;
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let mut player = Player {
        args,
        stop: &stop,
        pace: Pace::new(args.speed),
        begun: None,
        awaited: args.from_checkpoint.as_ref(),
        enter: if args.pause_on_error { Some(listen()?) } else { None },
        shown: 0,
    };
    let (messages, bytes) = WINDOW;
    let mut window = args.which.thread.is_some().then(|| Window::new(messages, bytes));
    let mut listening = true;
    let range = (Start::Earliest, End::Now);
    read(&config, "dashstream-replay", &args.which, range, &stop, &mut |item| {
        let due = if let Some(window) = &mut window { window.push(item) } else { vec![item] };
        for item in due {
            listening = player.play(&item)?;
            if !listening {
                break;
            }
        }
        Ok(listening)
    })?;
    for item in window.into_iter().flat_map(Window::finish) {
        if !listening || stop.is_cancelled() {
            break;
        }
        listening = player.play(&item)?;
    }
    if stop.is_cancelled() || !listening {
        return Ok(Exit::Success);
    }
    let topic = show::plain(&config.kafka.topic, 249);
    if let Some(Checkpoint(id)) = player.awaited {
        anyhow::bail!(
            "topic {topic} does not have the checkpoint {} of this thread; see `dashstream tail -B --no-follow --type checkpoint`",
            json::hex(id)
        );
    }
    anyhow::ensure!(
        player.shown > 0,
        "topic {topic} has no message that is meant; `dashstream tail -B --no-follow` shows all"
    );
    note(&format!("{} messages", player.shown));
    Ok(Exit::Success)
}

/// Shows messages when they are due.
struct Player<'a> {
    args: &'a Args,
    stop: &'a CancellationToken,
    pace: Pace,
    /// When the first message was shown, later by every pause.
    begun: Option<Instant>,
    /// The checkpoint behind which showing begins.
    awaited: Option<&'a Checkpoint>,
    enter: Option<Receiver<()>>,
    shown: u64,
}

impl Player<'_> {
    /// False: nobody wants to see more.
    fn play(&mut self, item: &Item) -> anyhow::Result<bool> {
        if let Some(Checkpoint(id)) = self.awaited {
            if matches!(&item.body, Body::Checkpoint(found) if found.checkpoint_id == *id) {
                self.awaited = None;
            }
            return Ok(true);
        }
        if !self.args.types.admits(item) {
            return Ok(true);
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let due = begun.checked_add(Duration::from_micros(self.pace.due_us(time_us(item))));
        if !self.wait_until(due) {
            return Ok(false);
        }
        let line = if self.args.json { json::message(item).to_string() } else { text::line(item) };
        self.shown += 1;
        Ok(print_line(&line)? && (!is_error(item) || self.pause()))
    }

    /// False: a signal came first. A time that no clock has never comes.
    fn wait_until(&self, due: Option<Instant>) -> bool {
        loop {
            let left = due.map_or(TURN, |due| due.saturating_duration_since(Instant::now()));
            if left.is_zero() || self.stop.is_cancelled() {
                return !self.stop.is_cancelled();
            }
            std::thread::sleep(left.min(TURN));
        }
    }

    /// Waits for Enter, where that is asked for. False: a signal, or the end of the input, came first.
    fn pause(&mut self) -> bool {
        let Some(enter) = &self.enter else { return true };
        note("-- an error: Enter goes on, Ctrl-C ends --");
        let paused = Instant::now();
        loop {
            match enter.recv_timeout(TURN) {
                Ok(()) => break,
                Err(RecvTimeoutError::Timeout) if !self.stop.is_cancelled() => {}
                Err(_) => return false,
            }
        }
        self.begun = self.begun.and_then(|begun| begun.checked_add(paused.elapsed()));
        true
    }
}

/// Tells of each line that is entered. The thread ends with the process: nothing interrupts reading from a terminal.
fn listen() -> anyhow::Result<Receiver<()>> {
    let (told, enter) = sync_channel(0);
    std::thread::Builder::new().name("enter".into()).spawn(move || {
        let mut lines = std::io::stdin().lines();
        while matches!(lines.next(), Some(Ok(_))) && told.send(()).is_ok() {}
    })?;
    Ok(enter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_named_as_they_are_shown() {
        assert_eq!(checkpoint("8C1f"), Ok(Checkpoint(vec![0x8c, 0x1f])));
        assert_eq!(checkpoint("00-ff"), Ok(Checkpoint(vec![0, 0xff])));
        for bad in ["", "-", "8", "8g", "ä1"] {
            assert!(checkpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn speeds_are_numbers_that_mean_something() {
        assert_eq!((speed("0"), speed("1.5")), (Ok(0.0), Ok(1.5)));
        for bad in ["-1", "NaN", "inf", "1e-9", "fast", ""] {
            assert!(speed(bad).is_err(), "{bad}");
        }
    }
}
