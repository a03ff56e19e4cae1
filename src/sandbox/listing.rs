//! Folders of the workspace as PID 1 sees them, when nothing else lives in the sandbox.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Error;
use super::guest::Nonce;
use super::pipe::{Kind, Pipe};

/// Most bytes of names in one order.
const LARGEST: usize = 1 << 19;

/// A folder and what is in it; nothing where PID 1 could not read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderSeen {
    pub path: PathBuf,
    pub entries: Option<Vec<EntrySeen>>,
}

/// One thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySeen {
    pub name: OsString,
    pub kind: KindSeen,
    /// Permission bits, setuid and the like included.
    pub mode: u32,
    pub inode: u64,
    pub size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindSeen {
    File,
    Folder,
    Link,
    /// A socket, pipe or device.
    Other,
}

/// Splits folders into as many orders as they take. None of the names holds a NUL.
pub(super) fn orders(folders: &[PathBuf]) -> Vec<Vec<u8>> {
    let mut orders = vec![Vec::new()];
    for folder in folders {
        // The workspace itself has no name of its own, and an empty one would end the list.
        let name = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let line = [name.as_os_str().as_bytes(), b"\0"].concat();
        let last = orders.last_mut().filter(|order| order.len() + line.len() <= LARGEST);
        match last {
            Some(order) => order.extend(line),
            None => orders.push(line),
        }
    }
    orders
}

pub(super) fn send(pipe: &Pipe, order: &[u8], nonce: &Nonce) -> Result<(), Error> {
    pipe.send(Kind::List, order)?;
    pipe.send(Kind::Go, nonce.as_str().as_bytes())
}

/// Reads one line; false where it is none of PID 1's.
pub(super) fn read(line: &str, seen: &mut Vec<FolderSeen>) -> bool {
    let mut parts = line.splitn(5, ' ');
    let first = parts.next().unwrap_or_default();
    if let "D" | "X" = first {
        let Some(path) = parts.next().and_then(unescape) else { return false };
        let path = if path == "." { PathBuf::new() } else { PathBuf::from(path) };
        seen.push(FolderSeen { path, entries: (first == "D").then(Vec::new) });
        return true;
    }
    let kind = match first {
        "f" => KindSeen::File,
        "d" => KindSeen::Folder,
        "l" => KindSeen::Link,
        "-" => KindSeen::Other,
        _ => return false,
    };
    let mode = parts.next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
    let inode = parts.next().and_then(|inode| inode.parse().ok());
    let size = parts.next().and_then(|size| size.parse().ok());
    let name = parts.next().and_then(unescape);
    let (Some(mode), Some(inode), Some(size), Some(name)) = (mode, inode, size, name) else {
        return false;
    };
    // No name of a kernel's.
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
        return false;
    }
    let Some(entries) = seen.last_mut().and_then(|folder| folder.entries.as_mut()) else {
        return false;
    };
    entries.push(EntrySeen { name, kind, mode, inode, size });
    true
}

fn unescape(text: &str) -> Option<OsString> {
    // `%` itself is escaped, so that nothing is read in two ways.
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    (!bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_others_refused() {
        let mut seen = Vec::new();
        for line in ["D .", "f 644 12 3 a%20b%FF%25", "d 755 4294967296 0 sub", "X sub/shut"] {
            assert!(read(line, &mut seen), "{line}");
        }
        let entry = |name: &[u8], kind, mode, inode, size| EntrySeen {
            name: OsString::from_vec(name.to_vec()),
            kind,
            mode,
            inode,
            size,
        };
        let top = vec![
            entry(b"a b\xff%", KindSeen::File, 0o644, 12, 3),
            entry(b"sub", KindSeen::Folder, 0o755, 1 << 32, 0),
        ];
        assert_eq!(
            seen,
            [
                FolderSeen { path: PathBuf::new(), entries: Some(top) },
                FolderSeen { path: "sub/shut".into(), entries: None },
            ]
        );
        for line in ["f 644 1 1 x", "", "f 644 1 a", "f 8 1 1 a", "? 644 1 1 a", "f 644 1 1 a%2Fb"]
        {
            assert!(!read(line, &mut seen), "{line:?}");
        }
        assert!(read("D d", &mut seen));
        for line in ["f 644 1 1 ", "f 644 1 1 ..", "f 644 1 1 a%2Fb", "f 644 1 1 a%00b"] {
            assert!(!read(line, &mut seen), "{line:?}");
        }
    }

    #[test]
    fn many_folders_take_several_orders() {
        let folders: Vec<_> = (0..10_000).map(|n| PathBuf::from(format!("{n:0>100}"))).collect();
        let orders = orders(&folders);
        assert_eq!(orders.len(), 2);
        assert!(orders.iter().all(|order| order.len() <= LARGEST && order.ends_with(b"\0")));
        assert_eq!(super::orders(&[PathBuf::new()]), [b".\0".to_vec()]);
    }
}
