//! Where an export goes: a file that appears when it is whole, or standard output.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::render::output::{self, Output};

/// Bytes that go out at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A target that could not be made or finished.
#[derive(Debug, Error)]
pub(crate) enum TargetError {
    /// The file cannot be made.
    #[error("failed to create `{}`", .path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was written cannot be made durable or named.
    #[error("failed to finish `{}`", .path.display())]
    Finish {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// An output that is being written. Dropped before [`Target::finish`], it leaves nothing.
#[derive(Debug)]
pub(crate) struct Target {
    writer: BufWriter<Place>,
}

#[derive(Debug)]
enum Place {
    StandardOutput(Output),
    /// What is no regular file is written as it is: a device, a pipe.
    Special(File, PathBuf),
    Aside(Aside),
}

/// A file under another name.
#[derive(Debug)]
struct Aside {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    is_finished: bool,
}

impl Target {
    /// A file, or standard output if it is called `-`.
    ///
    /// # Errors
    /// [`TargetError::Create`]
    pub(crate) fn create(path: &Path, output: Output) -> Result<Self, TargetError> {
        let place = if path == Path::new("-") {
            Place::StandardOutput(output)
        } else {
            Place::open(path).map_err(|source| TargetError::Create { path: path.to_owned(), source })?
        };
        Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, place) })
    }

    /// Whether a person watches.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.writer.get_ref(), Place::StandardOutput(_)) && output::is_terminal()
    }

    /// Writes what is left; a file is made durable, and takes its name and the place of what had it.
    ///
    /// # Errors
    /// [`TargetError::Finish`]; a file is gone then.
    pub(crate) fn finish(self) -> Result<(), TargetError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| TargetError::Finish { path, source }
        };
        let place = match self.writer.into_inner() {
            Ok(place) => place,
            Err(error) => {
                let (source, writer) = error.into_parts();
                return Err(failed(writer.get_ref().path())(source));
            }
        };
        match place {
            Place::StandardOutput(mut output) => output.flush().map_err(failed(Path::new("-"))),
            Place::Special(..) => Ok(()),
            Place::Aside(mut aside) => {
                let path = aside.path.clone();
                aside.finish().map_err(failed(&path))
            }
        }
    }
}

impl Place {
    fn open(path: &Path) -> io::Result<Self> {
        if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
            return Ok(Self::Special(OpenOptions::new().write(true).open(path)?, path.to_owned()));
        }
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
        // In the same folder, so that it is on the same file system.
        let unfinished = path.with_file_name(format!(".{name}.{:08x}.tmp", fastrand::u32(..)));
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        Ok(Self::Aside(Aside { file, unfinished, path: path.to_owned(), is_finished: false }))
    }

    fn path(&self) -> &Path {
        match self {
            Self::StandardOutput(_) => Path::new("-"),
            Self::Special(_, path) | Self::Aside(Aside { path, .. }) => path,
        }
    }
}

impl Aside {
    fn finish(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        self.is_finished = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nothing more can be done about it.
            drop(fs::remove_file(&self.unfinished));
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Write for Place {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::StandardOutput(output) => output.write(bytes),
            Self::Special(file, _) | Self::Aside(Aside { file, .. }) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::StandardOutput(output) => output.flush(),
            Self::Special(file, _) | Self::Aside(Aside { file, .. }) => file.flush(),
        }
    }
}
