//! The running kernel, from uname(2).

use std::{borrow::Cow, ffi::CStr, sync::Arc, time::Duration};

use belfry_common::model::Metric;

use super::{MINUTE, SampleError, Sampler, declare};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct Uname {
    metric: Arc<Metric>,
}

impl Uname {
    pub(crate) fn new() -> Self {
        Self {
            metric: declare::info(
                "node_uname_info",
                &["sysname", "release", "version", "machine", "nodename", "domainname"],
                "Labeled system information as provided by the uname system call.",
            ),
        }
    }
}

impl Sampler for Uname {
    fn name(&self) -> &'static str {
        "uname"
    }

    fn interval(&self) -> Duration {
        MINUTE
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let uname = rustix::system::uname();
        let [sysname, release, version, machine, nodename, domainname] =
            [uname.sysname(), uname.release(), uname.version(), uname.machine(), uname.nodename(), uname.domainname()]
                .map(lossy);
        readings.integer(&self.metric, &[&sysname, &release, &version, &machine, &nodename, &domainname], 1);
        Ok(())
    }
}

fn lossy(text: &CStr) -> Cow<'_, str> {
    text.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::fixture::print;

    #[test]
    fn the_kernel_says_what_it_is() {
        let printed = print(&mut Uname::new()).unwrap();
        assert!(printed.starts_with("node_uname_info{sysname=\"Linux\",release=\""), "{printed}");
    }
}
