//! Where the keys of the store come from: a file, or a credential that systemd hands to the service.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use belfry_store::Keys;

/// What a credential is written behind.
const CREDENTIAL: &str = "credential:";
/// Where systemd puts a service's credentials (systemd.exec(5)).
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// As the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    File(PathBuf),
    Credential(String),
}

impl From<PathBuf> for KeySource {
    fn from(path: PathBuf) -> Self {
        match path.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) {
            Some(name) => Self::Credential(name.to_owned()),
            None => Self::File(path),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{}`", path.display()),
            Self::Credential(name) => write!(f, "credential `{name}`"),
        }
    }
}

impl KeySource {
    /// Reads the keys.
    ///
    /// # Errors
    /// Why there are none, and what to do.
    pub(crate) fn read(&self) -> anyhow::Result<Keys> {
        let directory = std::env::var_os(CREDENTIALS_DIRECTORY).map(PathBuf::from);
        self.read_beside(directory.as_deref())
            .with_context(|| format!("the keys of the store cannot be read from {self}"))
    }

    fn read_beside(&self, credentials: Option<&Path>) -> anyhow::Result<Keys> {
        match self {
            Self::File(path) => Ok(Keys::read(path)?),
            Self::Credential(name) => {
                let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
                anyhow::ensure!(is_name, "a credential is `{CREDENTIAL}NAME`");
                let directory = credentials.with_context(|| {
                    format!("{CREDENTIALS_DIRECTORY} is not set: systemd hands credentials to services; elsewhere give --key-file")
                })?;
                Ok(Keys::read_credential(&directory.join(name))?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use belfry_common::error_chain::ErrorChain;

    use super::*;

    #[test]
    fn keys_come_from_a_file_or_from_a_credential() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.keys");
        fs::write(&path, "0f".repeat(32)).unwrap();
        // Systemd may let a group read what it puts there, by an access list that shows as this.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o440)).unwrap();
        let read = |text: &str, credentials| {
            let source = KeySource::from(PathBuf::from(text));
            source.read_beside(credentials).map_err(|error| ErrorChain(&*error).to_string())
        };
        let here = Some(directory.path());
        assert!(read("credential:store.keys", here).is_ok_and(|keys| keys.newest().is_some()));
        assert!(read(path.to_str().unwrap(), here).unwrap_err().contains("chmod 600"));
        assert!(read("credential:store.keys", None).unwrap_err().contains("--key-file"));
        assert!(read("credential:other", here).unwrap_err().contains("other"));
        for name in ["credential:", "credential:../store.keys", "credential:."] {
            assert!(read(name, here).unwrap_err().contains("credential:NAME"), "{name}");
        }
    }
}
