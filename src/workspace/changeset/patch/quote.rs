//! Names as git quotes them.

use std::os::unix::ffi::OsStrExt;

use super::super::RelPath;

/// `side/path`, in quotes where git could read it in another way than it is meant. Git takes any
/// name in quotes, so all that is not plainly harmless goes into them.
pub(super) fn name(side: &str, path: &RelPath) -> Vec<u8> {
    let bytes = path.as_path().as_os_str().as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-+@=,/~%^#!".contains(byte);
    if bytes.iter().all(plain) {
        return [side.as_bytes(), bytes].concat();
    }
    let mut out = vec![b'"'];
    out.extend(side.as_bytes());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            b'\t' => out.extend(b"\\t"),
            b'\r' => out.extend(b"\\r"),
            b' '..=b'~' => out.push(*byte),
            _ => out.extend(format!("\\{byte:03o}").into_bytes()),
        }
    }
    out.push(b'"');
    out
}
