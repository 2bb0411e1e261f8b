//! Reads rule files: the only place here that does I/O.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::limits;
use super::set::Source;

/// A rule file that could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("failed to read rule file `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("rule file `{}` is larger than {} bytes; split it", path.display(), limits::FILE_BYTES_MAX)]
    TooLarge { path: PathBuf },
}

/// Reads files in the order given. Their names in messages are the paths as given.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>, ReadError> {
    paths.iter().map(|path| read_one(path)).collect()
}

fn read_one(path: &Path) -> Result<Source, ReadError> {
    let failed = |source| ReadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(limits::FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > limits::FILE_BYTES_MAX {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(Source { name: path.display().to_string(), text })
}
