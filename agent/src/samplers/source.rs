//! A file of `/proc` or `/sys` that is read again and again.
//!
//! Opening costs more than reading: the file stays open and is read from its start into one buffer.
//! Bytes that are not UTF-8 are replaced: one odd name must not cost the family.

use std::{borrow::Cow, fs::File, io, os::unix::fs::FileExt, path::PathBuf};

use super::SampleError;

/// The largest of these files (`/proc/stat` of a machine with 1,000 CPUs) is well under this.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A kernel file and the buffer it is read into.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
    /// The text where it had to be mended; empty otherwise.
    mended: String,
}

impl Source {
    /// Remembers the path; the file is opened at the first read.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new(), mended: String::new() }
    }

    /// The file's text as it is now.
    pub(crate) fn read(&mut self) -> Result<&str, SampleError> {
        match self.fill() {
            Ok(length) => Ok(self.text(length)),
            Err(source) => Err(SampleError::Read { path: self.path.clone(), source }),
        }
    }

    /// The file's text, or `None` where this kernel does not offer it: there is no such file, or what it
    /// stands for is switched off.
    pub(crate) fn read_if_offered(&mut self) -> Result<Option<&str>, SampleError> {
        match self.fill() {
            Ok(length) => Ok(Some(self.text(length))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => Ok(None),
            Err(source) => Err(SampleError::Read { path: self.path.clone(), source }),
        }
    }

    /// An error about this file's content.
    pub(crate) fn format_error(&self, what: impl Into<Cow<'static, str>>) -> SampleError {
        SampleError::Format { path: self.path.clone(), what: what.into() }
    }

    fn text(&mut self, length: usize) -> &str {
        let bytes = self.buffer.get(..length).unwrap_or_default();
        match String::from_utf8_lossy(bytes) {
            Cow::Borrowed(text) => text,
            Cow::Owned(mended) => {
                self.mended = mended;
                &self.mended
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let filled = self.fill_open();
        if filled.is_err() {
            self.file = None;
        }
        filled
    }

    fn fill_open(&mut self) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        if self.buffer.is_empty() {
            self.buffer.resize(4096, 0);
        }
        let mut length = 0;
        loop {
            let free = self.buffer.get_mut(length..).unwrap_or_default();
            match file.read_at(free, length as u64) {
                Ok(0) => return Ok(length),
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if length == self.buffer.len() {
                if length >= BYTES_MAX {
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any such file should be"));
                }
                self.buffer.resize(length * 2, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_its_start_each_time_and_may_grow() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let mut source = Source::new(&path);
        assert!(source.read_if_offered().unwrap().is_none());
        assert!(source.read().is_err());

        std::fs::write(&path, "first").unwrap();
        assert_eq!(source.read().unwrap(), "first");
        let long = "x".repeat(10_000);
        std::fs::write(&path, &long).unwrap();
        assert_eq!(source.read().unwrap(), long);
        std::fs::write(&path, b"a\xffb").unwrap();
        assert_eq!(source.read().unwrap(), "a\u{fffd}b");
    }
}
