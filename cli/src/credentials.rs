//! Who asks, and whom: the identity a client uses and the collector that it asks.
//!
//! Looked for in this order: what the command line or `BELFRY_IDENTITY` names, the user's own identity, the data directory of a
//! collector on this machine, which holds an administrator's. Nothing is created here.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use belfry_common::{
    clock,
    identity::{Identity, IdentityError},
};
use thiserror::Error;

use crate::{commands::Global, paths};

/// The collector keeps this one fresh itself.
const LOCAL_NAME: &str = "local-admin";

/// Who asks, and whom.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) directory: PathBuf,
    pub(crate) identity: Identity,
    /// `HOST:PORT`
    pub(crate) address: String,
    /// It was given by whoever runs the program: what the directory says does not count.
    is_address_given: bool,
}

/// There is nobody to ask as, or nobody to ask.
#[derive(Debug, Error)]
pub(crate) enum CredentialsError {
    /// Nothing was found.
    #[error("no identity to ask the collector with\n{}", advice(.looked_in, .hidden.as_deref()))]
    Missing {
        looked_in: Vec<PathBuf>,
        /// One that may be there, where this user may not look.
        hidden: Option<PathBuf>,
    },
    /// What was found or named is not usable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An identity alone does not say where the collector is.
    #[error("`{}` does not say where the collector is: add --collector HOST:PORT", directory.display())]
    NoAddress { directory: PathBuf },
}

impl Credentials {
    /// Finds what the command line says or this machine has.
    ///
    /// # Errors
    /// [`CredentialsError`], with what to do.
    pub(crate) fn find(global: &Global) -> Result<Self, CredentialsError> {
        let directory = match named(global) {
            Some(directory) => directory,
            None => first_with_identity(candidates())?,
        };
        Self::load(directory, global.collector.clone())
    }

    /// What a directory holds. Without an address, it says where the collector is.
    ///
    /// # Errors
    /// [`CredentialsError`]
    pub(crate) fn load(directory: PathBuf, address: Option<String>) -> Result<Self, CredentialsError> {
        let identity = Identity::load(&directory)?;
        let is_address_given = address.is_some();
        match address.or_else(|| Identity::collector_address(&directory)) {
            Some(address) => Ok(Self { directory, identity, address, is_address_given }),
            None => Err(CredentialsError::NoAddress { directory }),
        }
    }

    /// The same as they are by now: certificates are renewed, and a collector on any free port has another after a restart.
    pub(crate) fn refreshed(&self) -> Self {
        let address = self.is_address_given.then(|| self.address.clone());
        Self::load(self.directory.clone(), address).unwrap_or_else(|_| self.clone())
    }

    /// Whether it is for the client to renew the certificate, and time to.
    pub(crate) fn is_to_renew(&self) -> bool {
        self.identity.subject.name.as_str() != LOCAL_NAME && clock::now() > self.identity.subject.renew_at()
    }
}

/// Where `join` keeps an identity: what the command line names, or the user's place.
pub(crate) fn own_directory(global: &Global) -> Option<PathBuf> {
    named(global).or_else(paths::user_directory)
}

fn named(global: &Global) -> Option<PathBuf> {
    // A variable that is set to nothing is as good as unset.
    global.identity.clone().filter(|directory| !directory.as_os_str().is_empty())
}

fn candidates() -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> = paths::user_directory().into_iter().collect();
    for directory in paths::data_directories() {
        if !candidates.contains(&directory) {
            candidates.push(directory);
        }
    }
    candidates
}

fn first_with_identity(candidates: Vec<PathBuf>) -> Result<PathBuf, CredentialsError> {
    let mut hidden = None;
    for directory in &candidates {
        match fs::metadata(directory.join("certificate.pem")) {
            Ok(_) => return Ok(directory.clone()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => hidden = Some(directory.clone()),
            Err(_) => {}
        }
    }
    Err(CredentialsError::Missing { looked_in: candidates, hidden })
}

fn advice(looked_in: &[PathBuf], hidden: Option<&Path>) -> String {
    let places: Vec<String> = looked_in.iter().map(|directory| directory.display().to_string()).collect();
    let here = match hidden {
        Some(hidden) => format!(
            "{} is there, but {} may not look into it: use sudo, or join as yourself:",
            hidden.display(),
            env::var("USER").unwrap_or_else(|_| "this user".into())
        ),
        None => {
            "on the collector's machine, name its data directory with --identity DIR; elsewhere, join first:".into()
        }
    };
    format!(
        "looked in {}\n{here}\nbelfry join TOKEN --collector HOST:PORT   (an administrator makes the token: belfry token create --role viewer)",
        places.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_first_directory_with_an_identity_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let [user, data] = ["user", "data"].map(|name| scratch.path().join(name));
        let find = || first_with_identity(vec![user.clone(), data.clone()]);
        assert!(find().is_err());
        for directory in [&data, &user] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("certificate.pem"), "").unwrap();
            assert_eq!(&find().unwrap(), directory);
        }
    }

    #[test]
    fn whoever_has_no_identity_is_told_how_to_get_one() {
        let missing = CredentialsError::Missing {
            looked_in: vec!["/home/ada/.config/belfry".into(), "/var/lib/belfry".into()],
            hidden: None,
        };
        expect![[r#"
            no identity to ask the collector with
            looked in /home/ada/.config/belfry, /var/lib/belfry
            on the collector's machine, name its data directory with --identity DIR; elsewhere, join first:
            belfry join TOKEN --collector HOST:PORT   (an administrator makes the token: belfry token create --role viewer)"#]]
        .assert_eq(&missing.to_string());
    }
}
