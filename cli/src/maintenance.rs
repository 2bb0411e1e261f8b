//! The thread on which the store puts its files in order.
//!
//! A full disk is waited for, and so are files that can be opened: what is in memory stays there, and so does the journal that it came
//! from. Any other failure to write ends the process, since nobody knows then what is on the disk.

use std::{
    sync::{
        atomic::Ordering::Relaxed,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use belfry_common::{clock, error_chain::ErrorChain, stages::Failure};
use belfry_store::{BlockError, Maintainer};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{allocator, priority};

const INTERVAL: Duration = Duration::from_secs(1);
/// How long a disk on which there was no space, or no file could be opened, is left alone.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Runs until the token is cancelled; what is in memory is put on disk at last.
pub(crate) async fn run(maintainer: Maintainer, token: CancellationToken) -> Result<(), Failure> {
    // Says nothing: it is dropped.
    let (stop, stopped) = channel::<()>();
    let (done, result) = oneshot::channel();
    let stop_flag = maintainer.stop_flag();
    let work = move || {
        let goes_on = |interval| stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout);
        drop(done.send(maintain(&maintainer, &goes_on)));
    };
    thread::Builder::new().name("maintenance".into()).spawn(work)?;
    tokio::pin!(result);
    tokio::select! {
        ended = &mut result => return Ok(ended??),
        () = token.cancelled() => {
            stop_flag.store(true, Relaxed);
            drop(stop);
        }
    }
    Ok(result.await??)
}

/// Calls the maintainer until `goes_on` says no after a while.
fn maintain(maintainer: &Maintainer, goes_on: &dyn Fn(Duration) -> bool) -> Result<(), BlockError> {
    priority::step_back(NICE);
    let (mut interval, mut is_waiting) = (INTERVAL, false);
    while goes_on(interval) {
        allocator::give_back();
        match maintainer.run(clock::now()) {
            Ok(()) => {
                if is_waiting {
                    info!("blocks can be written again");
                }
                (interval, is_waiting) = (INTERVAL, false);
            }
            Err(error) if error.is_retryable() => {
                if !is_waiting {
                    error!(error = %ErrorChain(&error), "blocks cannot be written: what is in memory stays there until they can");
                }
                (interval, is_waiting) = (RETRY_INTERVAL, true);
            }
            Err(BlockError::Stopped) => break,
            Err(error) => return Err(error),
        }
    }
    match maintainer.flush(clock::now()) {
        Err(error) if error.is_retryable() => Ok(()),
        flushed => flushed,
    }
}

/// The least there is.
const NICE: i32 = 19;
