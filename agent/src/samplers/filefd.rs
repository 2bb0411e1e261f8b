//! Open files of the whole machine, from `/proc/sys/fs/file-nr`.

use std::{sync::Arc, time::Duration};

use belfry_common::model::{Metric, Reason};

use super::{Roots, SECOND, SampleError, Sampler, Source, declare, number};
use crate::readings::Readings;

#[derive(Debug)]
pub(crate) struct FileDescriptors {
    source: Source,
    allocated: Arc<Metric>,
    maximum: Arc<Metric>,
}

impl FileDescriptors {
    pub(crate) fn new(roots: &Roots) -> Self {
        Self {
            source: Source::new(roots.proc.join("sys/fs/file-nr")),
            allocated: declare::gauge("node_filefd_allocated", &[], "File descriptor statistics: allocated."),
            maximum: declare::gauge("node_filefd_maximum", &[], "File descriptor statistics: maximum."),
        }
    }
}

impl Sampler for FileDescriptors {
    fn name(&self) -> &'static str {
        "filefd"
    }

    fn interval(&self) -> Duration {
        SECOND
    }

    fn sample(&mut self, readings: &mut Readings) -> Result<(), SampleError> {
        let text = self.source.read()?;
        // Allocated, allocated but unused (always 0), maximum.
        let mut counts = text.split_ascii_whitespace().map(number::unsigned);
        number::put(readings, &self.allocated, &[], counts.next().unwrap_or(Err(Reason::Error)));
        // The maximum is 2^63 - 1 on machines where systemd lifted it.
        number::put(readings, &self.maximum, &[], counts.nth(1).unwrap_or(Err(Reason::Error)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::samplers::fixture::Fixture;

    #[test]
    fn first_and_third_number() {
        let mut fixture = Fixture::new().proc("sys/fs/file-nr", "1024\t0\t9223372036854775807\n");
        let mut sampler = FileDescriptors::new(&fixture.roots());
        expect![[r#"
            node_filefd_allocated 1024
            node_filefd_maximum 9223372036854776000
        "#]]
        .assert_eq(&fixture.print(&mut sampler));
        fixture = fixture.proc("sys/fs/file-nr", "1024");
        expect![[r#"
            node_filefd_allocated 1024
            node_filefd_maximum missing (error)
        "#]]
        .assert_eq(&fixture.print(&mut sampler));
    }
}
