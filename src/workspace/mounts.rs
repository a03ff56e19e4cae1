//! The kernel's lists of mounts (`mountinfo`).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount, as the kernel lists it.
pub struct Mount<'a> {
    /// Major and minor number.
    pub device: &'a [u8],
    /// The path in its file system of what is mounted.
    pub root: PathBuf,
    pub place: PathBuf,
}

/// Reads a list. A line that is none is left out.
pub fn mounts(list: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    list.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let device = fields.next()?;
        Some(Mount { device, root: unescape(fields.next()?), place: unescape(fields.next()?) })
    })
}

/// Reads a name in which the kernel wrote blanks, line ends and backslashes as octal numbers.
fn unescape(name: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let octal = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn names_are_read_as_they_are() {
        let list = b"36 35 98:0 /r\\011 /a\\040b\\134c\\ rw - ext4 /dev/sda1 rw\nno mount\n";
        let found: Vec<_> = mounts(list).map(|one| (one.device, one.root, one.place)).collect();
        let [(device, root, place)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*device, b"98:0");
        assert_eq!((&**root, &**place), (Path::new("/r\t"), Path::new("/a b\\c\\")));
    }
}
