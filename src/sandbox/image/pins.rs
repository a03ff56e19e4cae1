//! Versions that are pinned in the image's files.

use serde::{Deserialize, Serialize};

use super::{DOCKERFILE, GUEST};

/// A package that the image gets from a registry, by version and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// The file that pins it, and for which machine.
    pub of: String,
    pub package: String,
    pub version: String,
    /// As registries write it: the kind, and base64.
    pub digest: String,
}

/// A package as `image/*.json` has it.
#[derive(Deserialize)]
struct Entry {
    package: String,
    version: String,
    integrity: String,
}

/// Every package that is pinned, from the files that the build itself reads.
pub fn pins() -> Vec<Pin> {
    let mut pins = Vec::new();
    for file in GUEST.files() {
        let path = file.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let of = path.file_stem().unwrap_or_default().to_string_lossy();
        let Ok(all) = serde_json::from_slice::<serde_json::Value>(file.contents()) else {
            continue;
        };
        for (machine, entry) in all.as_object().into_iter().flatten() {
            let Ok(entry) = serde_json::from_value::<Entry>(entry.clone()) else { continue };
            let Entry { package, version, integrity } = entry;
            pins.push(Pin { of: format!("{of} {machine}"), package, version, digest: integrity });
        }
    }
    pins
}

/// The base that the Dockerfile names.
pub fn public_base() -> &'static str {
    let lines = std::str::from_utf8(DOCKERFILE).unwrap_or_default().lines();
    let mut named = lines.filter_map(|line| line.strip_prefix("ARG BASE="));
    named.next().unwrap_or_default().trim()
}

/// The digest of an image that is named by one.
pub fn digest_in(name: &str) -> Option<&str> {
    name.split_once('@').map(|(_, digest)| digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_digest_of_the_images_files_is_among_the_pins() {
        let pins = pins();
        let mut count = String::from_utf8_lossy(DOCKERFILE).matches("sha512-").count();
        for file in GUEST.files() {
            count += String::from_utf8_lossy(file.contents()).matches("sha512-").count();
        }
        assert_eq!(pins.len(), count);
        let x64 = pins.iter().find(|pin| pin.of == "opencode x64").expect("OpenCode");
        assert_eq!(x64.package, "opencode-linux-x64");
        assert!(x64.version.starts_with(|c: char| c.is_ascii_digit()), "{x64:?}");
        assert!(x64.digest.starts_with("sha512-") && x64.digest.ends_with("=="), "{x64:?}");
    }

    #[test]
    fn the_base_is_the_dockerfiles() {
        assert!(public_base().contains("debian:"), "{}", public_base());
        assert_eq!(digest_in("debian@sha256:00"), Some("sha256:00"));
        assert_eq!(digest_in(public_base()), None);
    }
}
