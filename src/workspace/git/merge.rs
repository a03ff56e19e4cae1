//! Putting two versions of a text together that come from the same one.

use std::time::Duration;

use super::host::Ask;

/// Time for one file, and most of its result.
const TIME: Duration = Duration::from_secs(10);
const MOST: u64 = 4 << 20;

/// Merges two versions of `base`. Returns none where they change the same lines, are not text, or
/// there is no git on this machine. Blocking.
pub fn merge_file(base: &[u8], ours: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().ok()?;
    for (name, content) in [("base", base), ("ours", ours), ("theirs", theirs)] {
        std::fs::write(folder.path().join(name), content).ok()?;
    }
    let ask = Ask::at(folder.path())?;
    let merged = ask.args(["merge-file", "-p", "-q", "ours", "base", "theirs"]).run(TIME, MOST);
    merged.ok.then_some(merged.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_changed_in_other_places_is_put_together() {
        let base = b"one\ntwo\nthree\nfour\nfive\n";
        let ours = b"ONE\ntwo\nthree\nfour\nfive\n";
        let theirs = b"one\ntwo\nthree\nfour\nFIVE\nsix\n";
        let merged = merge_file(base, ours, theirs).expect("merged");
        assert_eq!(merged, b"ONE\ntwo\nthree\nfour\nFIVE\nsix\n");
        assert_eq!(merge_file(base, ours, b"1\ntwo\nthree\nfour\nfive\n"), None);
        assert_eq!(merge_file(b"a\0b\n", b"a\0c\n", b"x\na\0b\n"), None, "not text");
    }
}
