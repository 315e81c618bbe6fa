//! Commands of the program: run to their end, or watched while they run.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use super::eventually::eventually;
use super::topic::Topic;

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// Standard output, a JSON value per line.
    pub fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }
}

/// Where a topic is, as variables say it.
pub fn variables(topic: &Topic) -> Vec<(&'static str, String)> {
    vec![("KAFKA_BROKERS", topic.kafka.clone()), ("KAFKA_TOPIC", topic.name.clone())]
}

fn command(arguments: &[&str], variables: &[(&str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dashstream"));
    command.args(arguments).env_clear().envs(variables.iter().map(|(name, value)| (*name, value.as_str())));
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end, with these variables alone.
pub fn run(arguments: &[&str], variables: &[(&str, String)]) -> Ran {
    let output = command(arguments, variables).output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

/// As [`run`], and expects success.
#[track_caller]
pub fn done(arguments: &[&str], variables: &[(&str, String)]) -> Ran {
    let ran = run(arguments, variables);
    assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
    ran
}

/// A command that runs. It is killed when this is dropped.
pub struct Live {
    child: Child,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

impl Live {
    pub fn start(arguments: &[&str], variables: &[(&str, String)]) -> Self {
        let mut command = command(arguments, variables);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be run");
        let out = gathered(child.stdout.take().expect("a pipe"));
        let err = gathered(child.stderr.take().expect("a pipe"));
        Self { child, out, err }
    }

    /// As [`Live::start`], and waits for a text on standard error.
    #[track_caller]
    pub fn start_until(arguments: &[&str], variables: &[(&str, String)], told: &str) -> Self {
        let live = Self::start(arguments, variables);
        live.wait_for_note(told);
        live
    }

    /// The lines of standard output so far.
    pub fn lines(&self) -> Vec<String> {
        self.out.lock().expect("no panic").clone()
    }

    /// The lines of standard error so far.
    pub fn notes(&self) -> Vec<String> {
        self.err.lock().expect("no panic").clone()
    }

    /// Waits for so many lines, and answers them.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), BOUND, || match self.lines() {
            lines if lines.len() >= count => Ok(lines),
            lines => Err(format!("{lines:#?} {:#?}", self.notes())),
        })
    }

    /// Waits for a text on standard error, and answers its line.
    #[track_caller]
    pub fn wait_for_note(&self, told: &str) -> String {
        eventually(&format!("{told:?} on standard error"), BOUND, || {
            let notes = self.notes();
            notes.iter().find(|note| note.contains(told)).cloned().ok_or_else(|| format!("{notes:#?}"))
        })
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it runs");
    }

    /// Waits for the end, and answers the exit code.
    #[track_caller]
    pub fn wait_for_exit(&mut self) -> Option<i32> {
        let child = &mut self.child;
        eventually("the command to end", BOUND, || match child.try_wait().expect("a child") {
            Some(status) => Ok(status.code()),
            None => Err("it runs".to_owned()),
        })
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BOUND: Duration = Duration::from_secs(60);

fn gathered(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let gathering = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            gathering.lock().expect("no panic").push(line);
        }
    });
    lines
}
