//! Where a GPU worker notes the call that it is in, so that the agent can name the one that hangs.
//!
//! A few bytes of memory that both processes have open as a file. A call that hangs in the kernel can take its whole process
//! with it (every thread that needs the same lock), so the worker cannot be asked: what it noted before is read from outside.
//! Noting costs one system call.

use std::{
    cell::Cell,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::MemfdFlags;

/// Names of NVML's functions have under 60 characters; what is longer is cut.
const NAME_BYTES_MAX: usize = 60;
/// Number of the call u64, GPU u32, length of the name u8, name.
const RECORD_BYTES: usize = 8 + 4 + 1 + NAME_BYTES_MAX;
const NO_GPU: u32 = u32::MAX;

/// The board, at either end.
#[derive(Debug)]
pub(super) struct Board {
    file: File,
    calls: Cell<u64>,
}

/// What a board says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    /// Grows with each call: as long as it stays the same, the worker is in the same call.
    pub(super) number: u64,
    pub(super) call: String,
    pub(super) gpu: Option<u32>,
}

impl Board {
    /// A new one, for a process that is about to be started.
    pub(super) fn new() -> io::Result<Self> {
        // Not closed on exec: this is how the worker gets it.
        let memory = rustix::fs::memfd_create("belfry-gpu-calls", MemfdFlags::empty())?;
        Ok(Self { file: File::from(memory), calls: Cell::new(0) })
    }

    /// The number under which a child process has it open.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The board that the parent process handed down.
    pub(super) fn inherited(descriptor: RawFd) -> io::Result<Self> {
        let file = File::options().write(true).open(format!("/proc/self/fd/{descriptor}"))?;
        Ok(Self { file, calls: Cell::new(0) })
    }

    /// Notes the call that is about to be made. A board that cannot be written costs the name, not the reading.
    pub(super) fn note(&self, call: &str, gpu: Option<u32>) {
        self.calls.set(self.calls.get() + 1);
        let mut record = [0; RECORD_BYTES];
        let name = call.get(..call.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(call);
        let fields = [&self.calls.get().to_le_bytes()[..], &gpu.unwrap_or(NO_GPU).to_le_bytes(), &[name.len() as u8]];
        for (place, byte) in record.iter_mut().zip(fields.into_iter().flatten().chain(name.as_bytes())) {
            *place = *byte;
        }
        drop(self.file.write_at(&record, 0));
    }

    /// What the worker noted last; `None` before its first call.
    pub(super) fn read(&self) -> Option<Noted> {
        let mut record = [0; RECORD_BYTES];
        self.file.read_exact_at(&mut record, 0).ok()?;
        let (number, rest) = record.split_first_chunk::<8>()?;
        let (gpu, rest) = rest.split_first_chunk::<4>()?;
        let (length, name) = rest.split_first()?;
        let call = String::from_utf8_lossy(name.get(..usize::from(*length))?).into_owned();
        let gpu = Some(u32::from_le_bytes(*gpu)).filter(|&gpu| gpu != NO_GPU);
        Some(Noted { number: u64::from_le_bytes(*number), call, gpu })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_end_notes_the_other_reads() {
        let parent = Board::new().unwrap();
        let worker = Board::inherited(parent.descriptor()).unwrap();
        assert_eq!(parent.read(), None);
        worker.note("nvmlDeviceGetTemperature", Some(3));
        let noted = Noted { number: 1, call: "nvmlDeviceGetTemperature".into(), gpu: Some(3) };
        assert_eq!(parent.read(), Some(noted));
        worker.note(&"é".repeat(40), None);
        let noted = parent.read().unwrap();
        assert_eq!((noted.number, noted.call, noted.gpu), (2, "é".repeat(30), None));
    }
}
