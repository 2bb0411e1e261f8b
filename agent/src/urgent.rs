//! What must not wait for its tick: a sampler that has learnt of something asks to be sampled now.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Least time between two rounds for what is urgent: a flood of events becomes ten rounds a second.
const SPACING: Duration = Duration::from_millis(100);

/// Who asks, shared between samplers and sampling.
#[derive(Debug, Default)]
pub(crate) struct Urgent {
    names: Mutex<Vec<&'static str>>,
    notify: Notify,
}

impl Urgent {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The sampler of this name asks to be sampled now.
    pub(crate) fn raise(&self, name: &'static str) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if !names.contains(&name) {
            names.push(name);
        }
        drop(names);
        self.notify.notify_one();
    }

    /// Waits until somebody asks, and until some time has passed since the `last` time. Nothing is lost when the wait is given up.
    pub(crate) async fn wait(&self, last: Option<std::time::Instant>) {
        while self.names.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.notify.notified().await;
        }
        if let Some(last) = last {
            sleep_until(Instant::from_std(last + SPACING)).await;
        }
    }

    /// Those who ask; from now on they have not.
    pub(crate) fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
