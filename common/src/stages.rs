//! Runs a process as named stages and stops them in the order in which data flows.
//!
//! A stage is a task that ends when its token is cancelled, after it has drained what it holds. Stopping goes stage by
//! stage from the source on, so that nothing is left in a channel whose reader is gone, under one deadline for all.
//! When any stage ends by itself the process must stop too, and say which one it was: half a pipeline is worse than none.

use std::{future::Future, time::Duration};

use thiserror::Error;
use tokio::{
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// A stage's own failure.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why the process has to stop.
#[derive(Debug, Error)]
pub enum StageError {
    /// A stage reported an error.
    #[error("stage `{name}` failed")]
    Failed {
        /// Which.
        name: &'static str,
        /// Its error.
        source: Failure,
    },
    /// A stage panicked.
    #[error("stage `{name}` panicked")]
    Panicked {
        /// Which.
        name: &'static str,
    },
    /// A stage ended without being asked to.
    #[error("stage `{name}` ended by itself")]
    Ended {
        /// Which.
        name: &'static str,
    },
}

/// The stages of a process, in the order of the data.
#[derive(Debug, Default)]
pub struct Stages {
    stages: Vec<(&'static str, CancellationToken)>,
    tasks: JoinSet<(usize, Result<(), Failure>)>,
    running: Vec<bool>,
}

impl Stages {
    /// No stages yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts the next stage downstream of those started before.
    pub fn spawn<F>(&mut self, name: &'static str, stage: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let place = self.stages.len();
        let task = stage(token.clone());
        self.stages.push((name, token));
        self.running.push(true);
        self.tasks.spawn(async move { (place, task.await) });
    }

    /// Runs until `stop` is ready or a stage ends, then stops the rest in order within `deadline`.
    ///
    /// # Errors
    /// [`StageError`] when a stage was the reason.
    pub async fn run(mut self, stop: impl Future<Output = ()>, deadline: Duration) -> Result<(), StageError> {
        let first = tokio::select! {
            () = stop => None,
            Some(ended) = self.tasks.join_next() => Some(self.explain(ended)),
        };
        if let Some(error) = &first {
            error!(error = %crate::error_chain::ErrorChain(error), "stopping");
        }
        if timeout(deadline, self.stop()).await.is_err() {
            let late: Vec<_> = self.names_running().collect();
            error!(?late, "stages did not stop in time");
        }
        first.map_or(Ok(()), Err)
    }

    async fn stop(&mut self) {
        for place in 0..self.stages.len() {
            let Some((name, token)) = self.stages.get(place).cloned() else { continue };
            token.cancel();
            while self.running.get(place).copied().unwrap_or(false) {
                let Some(ended) = self.tasks.join_next().await else { return };
                if let Ok((ended, result)) = ended {
                    self.mark_ended(ended);
                    if let Err(error) = result {
                        error!(stage = self.name(ended), %error, "stage failed while stopping");
                    }
                } else {
                    // Which one panicked is not known any more; the deadline bounds the wait for it.
                    error!("a stage panicked while stopping");
                }
            }
            info!(stage = name, "stopped");
        }
    }

    fn explain(&mut self, ended: Result<(usize, Result<(), Failure>), JoinError>) -> StageError {
        match ended {
            Ok((place, result)) => {
                self.mark_ended(place);
                let name = self.name(place);
                match result {
                    Ok(()) => StageError::Ended { name },
                    Err(source) => StageError::Failed { name, source },
                }
            }
            Err(_) => StageError::Panicked { name: "unknown" },
        }
    }

    fn mark_ended(&mut self, place: usize) {
        if let Some(running) = self.running.get_mut(place) {
            *running = false;
        }
    }

    fn name(&self, place: usize) -> &'static str {
        self.stages.get(place).map_or("unknown", |(name, _)| name)
    }

    fn names_running(&self) -> impl Iterator<Item = &'static str> {
        self.stages.iter().zip(&self.running).filter(|(_, running)| **running).map(|((name, _), _)| *name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn waits(stages: &mut Stages, name: &'static str, log: &Arc<Mutex<Vec<&'static str>>>) {
        let log = Arc::clone(log);
        stages.spawn(name, |token| async move {
            token.cancelled().await;
            log.lock().unwrap().push(name);
            Ok(())
        });
    }

    #[tokio::test]
    async fn stages_stop_in_the_order_of_the_data() {
        let log = Arc::default();
        let mut stages = Stages::new();
        for name in ["source", "middle", "sink"] {
            waits(&mut stages, name, &log);
        }
        stages.run(async {}, Duration::from_secs(5)).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["source", "middle", "sink"]);
    }

    #[tokio::test]
    async fn one_that_dies_stops_the_rest_and_is_named() {
        let log = Arc::default();
        let mut stages = Stages::new();
        waits(&mut stages, "source", &log);
        stages.spawn("middle", |_| async { Err("disk on fire".into()) });
        waits(&mut stages, "sink", &log);
        let error = stages.run(std::future::pending(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "stage `middle` failed");
        assert_eq!(*log.lock().unwrap(), ["source", "sink"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_holds_nothing_up_beyond_the_deadline() {
        let mut stages = Stages::new();
        stages.spawn("stuck", |_| std::future::pending());
        stages.run(async {}, Duration::from_secs(5)).await.unwrap();
    }
}
