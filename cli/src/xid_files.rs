//! The catalogue of XIDs with the local file on top of it.

use std::{io, path::Path};

use belfry_common::config_file::{self, ConfigError};

use crate::xid::{Catalogue, Overrides};

/// A local file that need not be there.
pub(crate) const LOCAL: &str = "/etc/belfry/xid.toml";

/// The catalogue that ships, with what a file says on top.
pub(crate) fn load(path: &Path) -> Result<Catalogue, ConfigError> {
    let catalogue = Catalogue::built_in();
    match config_file::text(path) {
        Ok(text) => catalogue.override_with(Overrides::parse(&text, path)?),
        Err(ConfigError::Read { source, .. })
            if path == Path::new(LOCAL) && source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(catalogue)
        }
        Err(error) => Err(error),
    }
}
