//! Whether a runc has the mends of November 2025: before them, a container that was made to could
//! write to the host through masked paths and `/dev/console`.

/// The faults that [`judge`] is about.
pub const FAULTS: &str = "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Mended,
    /// Older than the mends.
    Open,
    /// Older, but a distribution's own build, which may have the mends all the same.
    Packaged,
    Unreadable,
}

/// Judges a version as `runc --version` tells it: the mends came with 1.2.8, 1.3.3 and 1.4.0-rc.3.
pub fn judge(version: &str) -> Verdict {
    let version = version.trim().trim_start_matches('v');
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (numbers, suffix) = version.split_at(end);
    let mut numbers = numbers.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Verdict::Unreadable;
    };
    let Ok(patch) = numbers.next().unwrap_or(Ok(0)) else { return Verdict::Unreadable };
    let candidate = candidate(suffix);
    let mended = match (major, minor, patch, candidate) {
        (1, 4, 0, Some(number)) => number >= 3,
        (1, 2, patch, _) => patch >= 8,
        (1, 3, patch, _) => patch >= 3,
        (major, minor, ..) => (major, minor) >= (1, 4),
    };
    match mended {
        true => Verdict::Mended,
        false if suffix.is_empty() || candidate.is_some() => Verdict::Open,
        false => Verdict::Packaged,
    }
}

/// The number in `-rc.3`, as upstream writes it, or `~rc3`, as packagers do.
fn candidate(suffix: &str) -> Option<u32> {
    let rest = suffix.strip_prefix(['-', '~'])?.strip_prefix("rc")?;
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_as_their_makers_number_them() {
        for (version, verdict) in [
            ("1.1.12", Verdict::Open),
            ("1.2.7", Verdict::Open),
            ("1.2.8", Verdict::Mended),
            ("v1.2.9", Verdict::Mended),
            ("1.3.0", Verdict::Open),
            ("1.3.2", Verdict::Open),
            ("1.3.3", Verdict::Mended),
            ("1.3.3-0ubuntu1~24.04.2", Verdict::Mended),
            ("1.4.0-rc.1", Verdict::Open),
            ("1.4.0-rc.3", Verdict::Mended),
            ("1.4.0~rc2+ds1", Verdict::Open),
            ("1.4.0", Verdict::Mended),
            ("2.0", Verdict::Mended),
            ("1.0.0-rc93", Verdict::Open),
            ("1.1.5+ds1", Verdict::Packaged),
            ("1.1.5+ds1-1+deb12u1", Verdict::Packaged),
            ("1.2.5-0ubuntu1~22.04.3", Verdict::Packaged),
            ("", Verdict::Unreadable),
            ("unknown", Verdict::Unreadable),
            ("1.99999999999.0", Verdict::Unreadable),
        ] {
            assert_eq!(judge(version), verdict, "{version}");
        }
    }
}
