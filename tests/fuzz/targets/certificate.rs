//! Certificates and requests for them from any bytes.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use belfry_common::{
    identity::{Authority, Profile, Role, Subject, key_sha256},
    model::{NodeName, Timestamp},
};
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("a directory");
    Authority::open(directory.path(), NOW).expect("an authority")
});

fuzz_target!(|data: &[u8]| {
    let certificate = CertificateDer::from(data);
    drop(Subject::parse(&certificate));
    std::hint::black_box(key_sha256(&certificate));
    let profile =
        Profile { name: NodeName::from_host_name("node-1"), role: Role::Agent, id: 1, life: Duration::from_secs(3600) };
    if let Ok(issued) = AUTHORITY.certify(data, &profile, NOW) {
        let subject = Subject::parse(&issued.certificate).expect("an issued certificate is of our form");
        assert_eq!((subject.name, subject.role, subject.id), (profile.name, profile.role, profile.id));
    }
});
