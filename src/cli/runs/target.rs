//! Where an export goes: standard output, or a file that is there complete or not at all.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Takes what is written.
pub(super) enum Target {
    /// Standard output.
    Stdout(BufWriter<io::Stdout>),
    /// A file that gets its name when it is complete.
    File(Unfinished),
}

/// A file beside the one that is to be; removed unless it is finished.
pub(super) struct Unfinished {
    writer: Option<BufWriter<File>>,
    beside: PathBuf,
    path: PathBuf,
    force: bool,
}

impl Target {
    /// Opens it. A file that exists is only replaced by `force`.
    pub(super) fn open(path: Option<&Path>, force: bool) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self::Stdout(BufWriter::new(io::stdout())));
        };
        anyhow::ensure!(!path.is_dir(), "{} is a folder; name a file", path.display());
        refuse_existing(path, force)?;
        let name = path.file_name().with_context(|| format!("{} names no file", path.display()))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.part", std::process::id()));
        let beside = path.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&beside);
        let file =
            file.with_context(|| format!("cannot write {}; check the folder and its permissions", beside.display()))?;
        let writer = Some(BufWriter::new(file));
        Ok(Self::File(Unfinished { writer, beside, path: path.to_owned(), force }))
    }

    /// Writes. False: nobody reads it any more.
    pub(super) fn write(&mut self, text: &str) -> anyhow::Result<bool> {
        match self {
            Self::Stdout(stdout) => heard(stdout.write_all(text.as_bytes())),
            Self::File(unfinished) => {
                let writer = unfinished.writer.as_mut().context("the file is closed")?;
                let written = writer.write_all(text.as_bytes());
                written.with_context(|| format!("cannot write {}", unfinished.beside.display()))?;
                Ok(true)
            }
        }
    }

    /// Everything was written: a file gets its name. False: nobody reads it any more.
    pub(super) fn finish(self) -> anyhow::Result<bool> {
        match self {
            Self::Stdout(mut stdout) => heard(stdout.flush()),
            Self::File(mut unfinished) => unfinished.finish().map(|()| true),
        }
    }
}

impl Unfinished {
    fn finish(&mut self) -> anyhow::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let write = || format!("cannot write {}", self.beside.display());
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error).with_context(write)?;
        file.sync_all().with_context(write)?;
        if self.force {
            return std::fs::rename(&self.beside, &self.path)
                .with_context(|| format!("cannot replace {}", self.path.display()));
        }
        // A link does not replace what somebody else has put there meanwhile; where there are no links, look once more.
        match std::fs::hard_link(&self.beside, &self.path) {
            Ok(()) => {
                let _ = std::fs::remove_file(&self.beside);
                Ok(())
            }
            Err(_) => {
                refuse_existing(&self.path, false)?;
                std::fs::rename(&self.beside, &self.path)
                    .with_context(|| format!("cannot write {}", self.path.display()))
            }
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it was finished there is none.
        let _ = std::fs::remove_file(&self.beside);
    }
}

fn refuse_existing(path: &Path, force: bool) -> anyhow::Result<()> {
    anyhow::ensure!(force || path.symlink_metadata().is_err(), "{} exists; --force replaces it", path.display());
    Ok(())
}

fn heard(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_complete_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        let mut target = Target::open(Some(&path), false).unwrap();
        target.write("half").unwrap();
        assert!(!path.exists());
        drop(target);
        assert!(names(folder.path()).is_empty(), "nothing is left behind");
        let mut target = Target::open(Some(&path), false).unwrap();
        target.write("whole").unwrap();
        target.finish().unwrap();
        assert_eq!(
            (std::fs::read_to_string(&path).unwrap().as_str(), names(folder.path())),
            ("whole", vec!["out.json".to_owned()])
        );
    }

    #[test]
    fn what_exists_is_replaced_only_when_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let begun = Target::open(Some(&path), false).unwrap();
        std::fs::write(&path, "old").unwrap();
        let refused = begun.finish().unwrap_err().to_string();
        assert!(refused.contains("--force"), "{refused}");
        assert!(Target::open(Some(&path), false).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        let mut target = Target::open(Some(&path), true).unwrap();
        target.write("new").unwrap();
        target.finish().unwrap();
        assert_eq!((std::fs::read_to_string(&path).unwrap().as_str(), names(folder.path()).len()), ("new", 1));
        assert!(Target::open(Some(folder.path()), true).is_err(), "a folder");
        assert!(Target::open(Some(&folder.path().join("no/out")), true).is_err(), "no folder");
    }
}
