//! Images that this program has built: their names, which one is the newest, which ones are old.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::engine::{Engine, Error, FoundImage};

/// The label of our images, which holds the name that the build gave.
pub const LABEL: &str = "sandbox-mcp.image";
/// The label with the hash of the settings that an image was built for.
pub const SETTINGS_LABEL: &str = "sandbox-mcp.settings";

const REPOSITORY: &str = "sandbox-mcp:";
/// In UTC, and sorted as text it is sorted by time.
const STAMP: &str = "%Y%m%dT%H%M%SZ";

/// Podman's names for an image that was built or loaded under a short one.
const REGISTRIES: [&str; 3] = ["", "localhost/", "docker.io/library/"];

/// Age up to which a run's own build leaves the image of another version alone. Two versions that
/// take turns on one machine would otherwise remove each other's image, and build again each time.
const SETTLED: SignedDuration = SignedDuration::from_hours(7 * 24);

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The name of an image before it says when it was built.
pub fn name_of(hash: &str) -> String {
    format!("{REPOSITORY}{hash}")
}

/// The name of an image that is built now.
pub fn stamped(hash: &str, at: Timestamp) -> String {
    format!("{}-{}", name_of(hash), at.strftime(STAMP))
}

/// An image of ours that the engine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    pub id: String,
    /// Our own name, as often as the engine has it; never empty, the shortest first.
    pub names: Vec<String>,
    /// Everything that went into it; none where an older version has built it.
    pub hash: Option<String>,
    /// The settings that it was built for, likewise.
    settings: Option<String>,
    pub at: Timestamp,
}

impl Built {
    /// None where the image is not ours. One that somebody has built on ours has inherited the
    /// label, but not the name in it.
    pub fn of(found: FoundImage) -> Option<Self> {
        let label = found.labels.get(LABEL)?;
        let is_ours = |name: &String| {
            let registry = name.strip_suffix(label.as_str());
            registry.is_some_and(|registry| REGISTRIES.contains(&registry))
        };
        let mut names: Vec<_> = found.names.into_iter().filter(is_ours).collect();
        names.sort_by_key(String::len);
        names.first()?;
        let stamped = label.strip_prefix(REPOSITORY).and_then(|tag| tag.rsplit_once('-'));
        let stamped = stamped.and_then(|(hash, stamp)| Some((hash.to_owned(), time_of(stamp)?)));
        let (hash, at) = match stamped {
            Some((hash, at)) => (Some(hash), at),
            None => (None, Timestamp::from_second(found.created).ok()?),
        };
        let settings = found.labels.get(SETTINGS_LABEL).cloned();
        Some(Self { id: found.id, names, hash, settings, at })
    }

    /// The name to use it by.
    pub fn name(&self) -> &str {
        &self.names[0]
    }
}

fn time_of(stamp: &str) -> Option<Timestamp> {
    let time = DateTime::strptime(STAMP, stamp).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Every image of ours.
pub async fn all(engine: &Engine) -> Result<Vec<Built>, Error> {
    Ok(engine.find_images(LABEL).await?.into_iter().filter_map(Built::of).collect())
}

/// The newest image of ours, whatever went into it.
pub async fn newest(engine: &Engine) -> Result<Option<String>, Error> {
    let newest = all(engine).await?.into_iter().max_by_key(|one| one.at);
    Ok(newest.map(|one| one.name().to_owned()))
}

/// The time of a new build: now, but after the last one even where the clock was set back, because
/// the newest is the one that is used.
pub fn next(last: Option<Timestamp>) -> Timestamp {
    let now = Timestamp::now();
    last.map_or(now, |last| now.max(last + SignedDuration::from_secs(1)))
}

/// The one that had the image built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Person,
    Run,
}

/// The images that `new` takes the place of.
///
/// Those are the earlier ones for the same settings, and those that do not say for which: only older
/// versions made them. Another profile or other packages are another project's, and nothing says
/// that it has no use for them any more. They go when a person builds and they are older than
/// `max_age` days, because that is when they were to be made again anyway; 0 keeps them.
pub fn older<'b>(
    all: &'b [Built],
    new: &Built,
    by: By,
    max_age: u64,
    bases: &[String],
) -> Vec<&'b Built> {
    let age = |one: &Built| new.at.duration_since(one.at);
    let max_age = i32::try_from(max_age).ok().filter(|days| *days > 0).map(|days| DAY * days);
    let is_old = |one: &Built| match (one.settings == new.settings || one.settings.is_none(), by) {
        (true, By::Person) => true,
        (true, By::Run) => age(one) > SETTLED,
        (false, By::Person) => max_age.is_some_and(|max_age| age(one) > max_age),
        (false, By::Run) => false,
    };
    let is_base = |one: &Built| one.names.iter().any(|name| bases.contains(name));
    let earlier = all.iter().filter(|one| one.id != new.id && one.at < new.at);
    earlier.filter(|one| is_old(one) && !is_base(one)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const TIME: &str = "20261130T170212Z";

    fn found(names: &[&str], labels: &[(&str, &str)]) -> FoundImage {
        let own = |text: &&str| (*text).to_owned();
        let labels = labels.iter().map(|(name, value)| (own(name), own(value)));
        FoundImage {
            id: names.concat(),
            names: names.iter().map(own).collect(),
            labels: labels.collect::<HashMap<_, _>>(),
            created: 1_000_000_000,
        }
    }

    fn image(hash: &str, days: i32, settings: &str) -> Built {
        let at = time_of(TIME).expect("a time") - DAY * days;
        let name = stamped(hash, at);
        Built::of(found(&[&name], &[(LABEL, &name), (SETTINGS_LABEL, settings)])).expect("ours")
    }

    #[test]
    fn a_name_says_what_went_in_and_when() {
        let at: Timestamp = "2026-11-30T17:02:12Z".parse().expect("a time");
        let name = stamped("adfc95d146ca", at);
        assert_eq!(name, format!("sandbox-mcp:adfc95d146ca-{TIME}"));
        let built = Built::of(found(&[&name], &[(LABEL, &name)])).expect("ours");
        assert_eq!((built.hash.as_deref(), built.at), (Some("adfc95d146ca"), at));
        // Podman's names are as good; the label says which of an image's names is ours.
        let names = ["docker.io/library/", "localhost/"].map(|before| format!("{before}{name}"));
        let mine = found(&[&names[0], &names[1], "me/mine:1"], &[(LABEL, &name)]);
        let built = Built::of(mine).expect("ours");
        assert_eq!(built.name(), names[1]);
        assert_eq!(built.names.len(), 2);
    }

    #[test]
    fn what_only_has_the_label_is_not_ours() {
        let name = format!("sandbox-mcp:adfc95d146ca-{TIME}");
        let elsewhere = format!("registry.example/{name}");
        for names in [&["me/mine:1"][..], &[&elsewhere], &[]] {
            assert_eq!(Built::of(found(names, &[(LABEL, &name)])), None, "{names:?}");
        }
        assert_eq!(Built::of(found(&[&name], &[])), None);
    }

    #[test]
    fn an_image_of_an_older_version_has_the_engines_time_and_no_hash() {
        let name = "sandbox-mcp:adfc95d146ca";
        let built = Built::of(found(&[name], &[(LABEL, name)])).expect("ours");
        assert_eq!((built.hash, built.at.as_second()), (None, 1_000_000_000));
    }

    fn old(all: &[Built], by: By, max_age: u64, bases: &[String]) -> Vec<String> {
        let new = image("new", 0, "a");
        let found = older(all, &new, by, max_age, bases);
        found.into_iter().map(|one| one.hash.clone().unwrap_or_default()).collect()
    }

    #[test]
    fn a_person_who_builds_replaces_what_was_built_before() {
        let unknown = Built { settings: None, hash: None, ..image("", 1, "") };
        let all = [
            image("new", 0, "a"),
            image("yesterday", 1, "a"),
            image("tomorrow", -1, "a"),
            image("other", 29, "b"),
            image("other-and-old", 31, "b"),
            unknown,
        ];
        assert_eq!(old(&all, By::Person, 30, &[]), ["yesterday", "other-and-old", ""]);
        assert_eq!(old(&all, By::Person, 0, &[]), ["yesterday", ""]);
        let base = [all[1].name().to_owned()];
        assert_eq!(old(&all, By::Person, 0, &base), [""], "what others are built on stays");
    }

    #[test]
    fn a_run_that_builds_leaves_another_versions_image_for_a_week() {
        let all = [image("six", 6, "a"), image("eight", 8, "a"), image("other", 400, "b")];
        assert_eq!(old(&all, By::Run, 30, &[]), ["eight"]);
    }

    #[test]
    fn the_next_build_is_after_the_last() {
        let future = Timestamp::now() + DAY;
        assert!(next(Some(future)) > future);
        assert!(next(None) < future);
    }
}
