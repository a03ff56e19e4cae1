//! Certificate authorities of this machine, which a build may need to reach its packages.

use std::path::{Path, PathBuf};

use crate::sandbox::Error;

/// Variables that usually name people's own certificate authorities, if the configuration does not.
const VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"];

pub fn read_bundle(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        what: format!("read the CA bundle {}", path.display()),
        source,
    })
}

/// The extra certificate authorities of this machine: the bundle that the environment names, else
/// those that were added by hand, else none.
pub fn found_bundle() -> Result<Vec<u8>, Error> {
    let named = VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    if let Some(path) = named.into_iter().find(|path| path.is_file()) {
        return read_bundle(&path);
    }
    let Ok(entries) = std::fs::read_dir("/usr/local/share/ca-certificates") else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .collect();
    paths.sort();
    let mut bundle = Vec::new();
    for path in paths {
        bundle.extend(read_bundle(&path)?);
        bundle.push(b'\n');
    }
    Ok(bundle)
}
