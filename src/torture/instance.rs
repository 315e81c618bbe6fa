//! An instance of the service as a process of its own: started, killed by signal 9, stopped, its wall clock set.
//!
//! It takes another port each time. What it says goes to a file.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends a process with the one that began it; of util-linux.
const LEASH: &str = "/usr/bin/setpriv";
/// What shows a process another wall clock; empty where there is no such thing.
const CLOCK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));
/// What the service says once it listens.
const LISTENING: &str = "listening on http://";

/// How instances are started.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables besides those of this process's environment.
    pub variables: Vec<(String, String)>,
    /// Variables of this process's environment that it must not see.
    pub hidden: Vec<&'static str>,
}

/// Whether instances can be shown another wall clock on this machine.
pub(super) const HAS_CLOCK: bool = !CLOCK.is_empty();

/// The wall clock of an instance.
#[derive(Debug)]
struct Clock {
    /// The library that shows it.
    library: PathBuf,
    /// Holds the difference to the real time, as the library reads it.
    file: PathBuf,
    /// That difference, in seconds.
    is_off: i64,
}

impl Clock {
    /// One that shows the real time.
    fn new(name: &str, folder: &Path) -> io::Result<Self> {
        let (library, file) = (folder.join(format!("{name}.clock.so")), folder.join(format!("{name}.clock")));
        fs::write(&library, CLOCK)?;
        fs::write(&file, 0_i64.to_ne_bytes())?;
        Ok(Self { library, file, is_off: 0 })
    }

    fn set(&mut self, seconds: i64) -> io::Result<()> {
        self.is_off += seconds;
        // In place: the file is mapped.
        OpenOptions::new().write(true).open(&self.file)?.write_all_at(&self.is_off.to_ne_bytes(), 0)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.library);
        let _ = fs::remove_file(&self.file);
    }
}

/// One instance, running or not.
#[derive(Debug)]
pub(super) struct Instance {
    program: Program,
    variables: Vec<(String, String)>,
    log: PathBuf,
    /// `None`: the real one.
    clock: Option<Clock>,
    child: Child,
    /// Where it listens, once that is known.
    address: Option<String>,
    /// Bytes of the log that are of runs before this one.
    before: usize,
}

impl Instance {
    /// Starts one that is called `name`; it leaves its log in `folder`. To see another wall clock has its price: only those
    /// whose clock will be set pay it.
    pub(super) fn start(
        program: &Program,
        variables: Vec<(String, String)>,
        name: &str,
        folder: &Path,
        clock_is_set: bool,
    ) -> io::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let clock = if clock_is_set { Some(Clock::new(name, folder)?) } else { None };
        // What an earlier one of that name has said is not where this one listens.
        fs::write(&log, "")?;
        let child = spawn(program, &variables, &log, clock.as_ref())?;
        Ok(Self { program: program.clone(), variables, log, clock, child, address: None, before: 0 })
    }

    /// Kills it by signal 9 and starts it again.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.address = None;
        self.before = fs::read(&self.log)?.len();
        self.child = spawn(&self.program, &self.variables, &self.log, self.clock.as_ref())?;
        Ok(())
    }

    /// Where it listens, `host:port`; `None`: not yet.
    pub(super) fn address(&mut self) -> io::Result<Option<&str>> {
        if self.address.is_none() {
            let said = fs::read(&self.log)?;
            let said = String::from_utf8_lossy(said.get(self.before..).unwrap_or_default());
            let address = said.lines().find_map(|line| line.strip_prefix(LISTENING));
            self.address = address.map(|address| address.trim().to_owned());
        }
        Ok(self.address.as_deref())
    }

    /// Lets it stand still, or go on.
    pub(super) fn signal(&self, signal: Signal) {
        // One that has just ended is found out by who asks whether it runs.
        let _ = i32::try_from(self.child.id()).map(|id| kill(Pid::from_raw(id), signal));
    }

    /// Sets its wall clock forward, or back, by so many seconds, if it has one of its own.
    pub(super) fn set_clock(&mut self, seconds: i64) -> io::Result<()> {
        self.clock.as_mut().map_or(Ok(()), |clock| clock.set(seconds))
    }

    /// How it ended, if it did by itself.
    pub(super) fn ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Program, variables: &[(String, String)], log: &Path, clock: Option<&Clock>) -> io::Result<Child> {
    let out = OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = match fs::exists(LEASH) {
        Ok(true) => {
            let mut leashed = Command::new(LEASH);
            leashed.args(["--pdeathsig", "KILL", "--"]).arg(&program.path);
            leashed
        }
        _ => Command::new(&program.path),
    };
    let variables = program.variables.iter().chain(variables);
    command.args(&program.arguments).envs(variables.map(|(name, value)| (name, value)));
    for name in &program.hidden {
        command.env_remove(name);
    }
    if let Some(Clock { library, file, .. }) = clock {
        command.env("LD_PRELOAD", library).env("TORTURE_CLOCK", file);
    }
    // A group of its own: an interrupt from the terminal is for the one who runs the scenario.
    command.process_group(0).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()
}
