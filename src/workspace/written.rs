//! Folders as hosts and their models write them: as a path, as a `file:` URI, or below `~`.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;

/// The folder that is meant. What is no URI of this machine stays as it is.
pub(super) fn meant<'a>(given: &'a Path, home: Option<&Path>) -> Cow<'a, Path> {
    let Some(text) = given.to_str() else { return Cow::Borrowed(given) };
    if let Some(path) = of_uri(text) {
        return Cow::Owned(path);
    }
    match (text.strip_prefix('~'), home) {
        (Some(""), Some(home)) => Cow::Owned(home.to_owned()),
        (Some(rest), Some(home)) if rest.starts_with('/') => {
            Cow::Owned(home.join(rest.trim_start_matches('/')))
        }
        _ => Cow::Borrowed(given),
    }
}

/// The path in a `file:` URI of this machine. Nothing in it is a fragment or a query: hosts that
/// escape nothing put names with `#` and `?` there.
pub fn of_uri(uri: &str) -> Option<PathBuf> {
    let (scheme, rest) = uri.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case("file:") {
        return None;
    }
    let path = match rest.strip_prefix("//") {
        Some(rest) => {
            let (host, _) = rest.split_once('/')?;
            let is_here = host.is_empty() || host.eq_ignore_ascii_case("localhost");
            is_here.then_some(&rest[host.len()..])?
        }
        None => rest.starts_with('/').then_some(rest)?,
    };
    Some(OsString::from_vec(percent_decode_str(path).collect()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_meant_however_it_is_written() {
        let read = |given: &str| {
            let meant = meant(Path::new(given), Some(Path::new("/home/me"))).into_owned();
            meant.into_os_string().into_string().expect("text")
        };
        for (given, path) in [
            ("file:///a/my%20project%20%C3%BC/", "/a/my project ü/"),
            ("file:///a/my project ü", "/a/my project ü"),
            ("file://localhost/a%23b", "/a#b"),
            ("FILE:///a#b?c", "/a#b?c"),
            ("file:/a", "/a"),
            ("file:///100%/a%2", "/100%/a%2"),
            ("file:///a%2520b", "/a%20b"),
            ("~", "/home/me"),
            ("~/p/q", "/home/me/p/q"),
            ("~//etc", "/home/me/etc"),
        ] {
            assert_eq!(read(given), path, "{given}");
        }
        for same in
            ["/a%20b", "a", ".", "", "~you/p", "a/~/b", "file://other/a", "file:a", "file://a"]
        {
            assert_eq!(read(same), same);
        }
        assert_eq!(meant(Path::new("~/p"), None), Path::new("~/p"));
    }
}
