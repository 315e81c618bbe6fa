//! `dashstream watch`: a running graph, as it goes on.

use std::collections::{BTreeSet, VecDeque};
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::place::{Place, Which, thread_of};
use super::source::{Source, Step};
use super::watch_screen::Screen;
use super::watch_text::{changes, picture, snapshot};
use super::{Exit, UsageError, gather, note, print_line, seam, show, text};
use crate::config::Config;
use crate::config::environment::Environment;
use crate::kafka::records::{End, Start};
use crate::runs::fact::Fact;
use crate::runs::item::{Body, Item};
use crate::runs::run::{Added, Run};
use crate::runs::state::Chain;
use crate::runs::threads::Threads;
use crate::runs::tree::Tree;
use crate::runs::view::View;

/// Without a thread, the newest run of so long a time is watched.
const NEWEST_MS: i64 = 60 * 60 * 1_000;
/// How long a key may wait.
const TURN: Duration = Duration::from_millis(50);
/// So long the first picture waits for what the topic holds already.
const PATIENCE: Duration = Duration::from_secs(2);
/// The last messages that are shown, and what there was to tell meanwhile.
const RECENT: usize = 8;

/// Watch a running graph: nodes, calls, state, as they go on
///
/// The run is read from its beginning, so the picture is complete. On a terminal it is drawn in place, and q or Ctrl-C ends; elsewhere
/// each change is a line. A node waits, runs, is done or has failed; unfinished is one that the end of its graph has left behind. Of a
/// thread that is used again the last graph is shown. Nobody is disturbed: no group is joined, nothing is committed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  dashstream watch                                    the newest run
  dashstream watch --thread run-17
  dashstream watch --thread run-17 --until-done       for scripts: ends with the graph
  dashstream watch --thread run-17 --json | jq .status

Exit code: with --until-done 1 when the graph failed.")]
pub(in crate::cli) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    which: Which,
    /// Look for changes this often, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(20..=10_000))]
    refresh_ms: u64,
    /// End when the graph ends
    #[arg(long)]
    until_done: bool,
    /// One JSON object per change and line: the whole picture
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn run(args: &Args, environment: &Environment) -> anyhow::Result<Exit> {
    if args.which.until.is_some() {
        return Err(UsageError("a run is watched as it goes on: leave --until out".to_owned()).into());
    }
    let config = args.place.load(environment)?;
    let mut which = args.which.clone();
    if which.thread.is_none() {
        newest(&config, &mut which)?;
    }
    let stop = CancellationToken::new();
    seam::cancel_on_signal(stop.clone())?;
    let source = Source::open(&config, "dashstream-watch", &which, Start::Earliest, End::Never)?;
    let mut watch = Watch::default();
    let draws = std::io::stdout().is_terminal() && !args.json;
    let status = if draws {
        let notes = Arc::new(Mutex::new(VecDeque::new()));
        let told = Arc::clone(&notes);
        let source =
            source.with_notes(move |text| push(&mut told.lock().unwrap_or_else(PoisonError::into_inner), text));
        let mut screen = Screen::open()?;
        watch.run(args, source, &stop, &mut |watch, view, _| {
            let notes: Vec<String> = notes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            let (columns, rows) = Screen::size();
            screen.draw(&picture(view, &watch.fields, &watch.recent, &notes, (columns, rows)))?;
            Ok(true)
        })?
    } else {
        watch.run(args, source, &stop, &mut |watch, view, before| {
            let none = BTreeSet::new();
            let fields = if watch.is_touched { &watch.fields } else { &none };
            let lines =
                if args.json { vec![snapshot(view, fields, watch.is_complete)] } else { changes(before, view, fields) };
            for line in lines {
                if !print_line(&line)? {
                    return Ok(false);
                }
            }
            Ok(true)
        })?
    };
    let failed = args.until_done && status == crate::runs::tree::Status::Failed;
    Ok(if failed { Exit::Failed } else { Exit::Success })
}

/// Finds the thread whose last message is the newest; where there is none, the first that comes is watched.
fn newest(config: &Config, which: &mut Which) -> anyhow::Result<()> {
    let mut threads = Threads::default();
    let window = Which { since: which.since.or(Some(seam::now_ms().saturating_sub(NEWEST_MS))), ..which.clone() };
    gather::all(config, "dashstream-watch", &window, &mut |item| {
        if !thread_of(&item).is_empty() {
            threads.touch(thread_of(&item), &item);
        }
        Ok(true)
    })?;
    match threads.latest(1).0.first() {
        Some(found) => {
            note(&format!("watching the newest run: thread {}", show::plain(&found.thread, 120)));
            which.thread = Some(found.thread.clone());
            which.tenant = Some(found.tenant.clone());
        }
        None => note("no run yet; the first one that comes is watched"),
    }
    Ok(())
}

fn push(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == RECENT {
        lines.pop_front();
    }
    lines.push_back(line.to_owned());
}

/// What is shown of a change. False: nobody looks any more.
type Show<'a> = dyn FnMut(&Watch, &View, Option<&View>) -> anyhow::Result<bool> + 'a;

/// The run that is watched.
#[derive(Default)]
struct Watch {
    run: Option<Run>,
    state: Chain,
    /// Top-level fields of the state that the last change touched.
    fields: BTreeSet<String>,
    /// Whether that was after what is shown.
    is_touched: bool,
    /// Whether every record could be read.
    is_complete: bool,
    recent: VecDeque<String>,
}

impl Watch {
    fn run(
        &mut self,
        args: &Args,
        mut source: Source,
        stop: &CancellationToken,
        show: &mut Show<'_>,
    ) -> anyhow::Result<crate::runs::tree::Status> {
        let refresh = Duration::from_millis(args.refresh_ms);
        let (mut shown, mut is_stale) = (None::<View>, false);
        let mut due = Instant::now() + refresh;
        let patience = Instant::now() + PATIENCE;
        while !stop.is_cancelled() && !Screen::wants_to_leave()? {
            let is_idle = match source.next(TURN.min(refresh))? {
                Step::Item(item) => {
                    is_stale |= self.take(&item)?;
                    false
                }
                Step::Idle => true,
                Step::End => break,
            };
            let now = Instant::now();
            // What the topic holds already is not history to be played: the first picture is that of now.
            let is_first = shown.is_none() && !source.is_caught_up() && now < patience;
            let is_over = shown.as_ref().is_some_and(|view| view.status.is_over());
            if args.until_done && is_over && !is_stale && source.is_caught_up() {
                break;
            }
            if !is_stale || now < due || (is_first && !is_idle) {
                continue;
            }
            let Some(run) = &self.run else { continue };
            let view = View::of(run, &Tree::of(run));
            // A large run is looked at less often, so that looking does not keep it from being read.
            due = now + refresh.max(now.elapsed() * 10);
            is_stale = false;
            self.is_complete = source.told().missing().is_none();
            let goes_on = shown.as_ref() == Some(&view) || show(self, &view, shown.as_ref())?;
            self.is_touched = false;
            shown = Some(view);
            if !goes_on {
                break;
            }
        }
        source.finish();
        Ok(shown.map(|view| view.status).unwrap_or_default())
    }

    /// False: it says nothing new.
    fn take(&mut self, item: &Item) -> anyhow::Result<bool> {
        let thread = thread_of(item);
        let run = match &mut self.run {
            Some(run) => run,
            none if !thread.is_empty() => none.insert(Run::new(&item.header.tenant_id, thread, false)),
            _ => return Ok(false),
        };
        if run.thread() != thread {
            return Ok(false);
        }
        anyhow::ensure!(
            run.tenant() == item.header.tenant_id,
            "thread {} belongs to several tenants, {} and {}; name one with --tenant",
            show::plain(thread, 120),
            show::plain(run.tenant(), 60),
            show::plain(&item.header.tenant_id, 60)
        );
        if run.add(item)? == Added::Repeated {
            return Ok(false);
        }
        if matches!(item.body, Body::Event(_) | Body::StateDiff(_) | Body::Checkpoint(_) | Body::ExecutionTrace(_)) {
            let touched = self.state.step(item.place, &Fact::of(&item.body, true));
            if !touched.is_empty() {
                self.fields = touched;
                self.is_touched = true;
            }
        }
        // Pieces of answers would push everything else out.
        if !matches!(item.body, Body::TokenChunk(_) | Body::Metrics(_)) {
            push(&mut self.recent, &text::line(item));
        }
        Ok(true)
    }
}
