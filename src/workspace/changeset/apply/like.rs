//! Making new things look as if the user had made them: whose they are, and who may read them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::Errno;

use crate::workspace::Owner;

/// The access list of a thing, and the one that a folder gives to what is made in it.
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const SETGID: u32 = 0o2000;

/// Makes a new file in the staging folder with the group, the access list and what the own mask
/// leaves of `mode`, as it would have them, had it been made in `folder`.
pub(super) fn new_file(
    staging: BorrowedFd<'_>,
    name: &str,
    folder: BorrowedFd<'_>,
    owner: Owner,
    mode: u32,
) -> io::Result<File> {
    let mode = Mode::from_raw_mode(mode);
    // Without a name, in the folder itself: so the kernel gives it what it gives things there. Not
    // every file system can do that, and not every folder lets us.
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let nameless = rustix::fs::openat(folder, ".", flags, mode);
    let named = nameless.and_then(|file| {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, path, staging, name, AtFlags::SYMLINK_FOLLOW)?;
        Ok(file)
    });
    let file = named.or_else(|_| plain_file(staging, name, mode))?;
    own(&file, owner, shared_group(folder)?)?;
    Ok(file.into())
}

/// Makes a file in the staging folder that looks like the one whose place it takes.
pub(super) fn replacing_file(staging: BorrowedFd<'_>, name: &str, old: &File) -> io::Result<File> {
    let file = plain_file(staging, name, Mode::RUSR | Mode::WUSR)?;
    let stat = rustix::fs::fstat(old)?;
    own(&file, Owner { uid: stat.st_uid, gid: stat.st_gid }, Some(stat.st_gid))?;
    // What it has from the staging folder by itself.
    remove(&file, ACCESS)?;
    for name in names(old)? {
        let ours = name == ACCESS.as_bytes() || name.starts_with(b"user.");
        let name = std::ffi::OsString::from(String::from_utf8_lossy(&name).into_owned());
        if ours && let Some(value) = read(old, &name)? {
            rustix::fs::fsetxattr(&file, &name, &value, XattrFlags::empty())?;
        }
    }
    Ok(file.into())
}

/// Gives a new folder in the staging folder what it would have, had it been made in `folder`.
pub(super) fn inherit(
    fresh: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    owner: Owner,
    mode: u32,
) -> io::Result<()> {
    let group = shared_group(folder)?;
    own(fresh, owner, group)?;
    let list = read(folder, OsStr::new(DEFAULT))?;
    for name in [ACCESS, DEFAULT] {
        match &list {
            Some(list) => rustix::fs::fsetxattr(fresh, name, list, XattrFlags::empty())?,
            None => remove(fresh, name)?,
        }
    }
    let shared = if group.is_some() { SETGID } else { 0 };
    Ok(rustix::fs::fchmod(fresh, Mode::from_raw_mode(mode | shared))?)
}

fn plain_file(staging: BorrowedFd<'_>, name: &str, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(staging, name, flags, mode)
}

/// The group that a folder gives to all that is made in it, if it does.
fn shared_group(folder: BorrowedFd<'_>) -> Result<Option<u32>, Errno> {
    let stat = rustix::fs::fstat(folder)?;
    Ok((stat.st_mode & SETGID != 0).then_some(stat.st_gid))
}

/// Gives a new thing to whom it should belong, where we may. Nobody gives away what is theirs, and
/// a group that one is not in is no reason to fail: an editor could not keep it either.
fn own(made: impl AsFd, owner: Owner, group: Option<u32>) -> Result<(), Errno> {
    let root = rustix::process::geteuid().is_root();
    let gid = group.or(root.then_some(owner.gid)).map(Gid::from_raw);
    match rustix::fs::fchown(made, root.then(|| Uid::from_raw(owner.uid)), gid) {
        Err(Errno::PERM) if !root => Ok(()),
        done => done,
    }
}

fn names(file: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = vec![0_u8; 64 << 10];
    match rustix::fs::flistxattr(file, &mut names[..]) {
        Ok(length) => Ok(names[..length].split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
    }
}

fn read(file: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; 64 << 10];
    match rustix::fs::fgetxattr(file, name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn remove(file: impl AsFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::fremovexattr(file, name) {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        done => done,
    }
}
