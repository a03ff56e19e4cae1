//! The image: built through the engine's API from files inside this program.
//!
//! Its name has a hash of everything that goes into it, so that a changed input is a new image and an
//! unchanged one costs one look. Debian's packages change all the same, so the name also has the time
//! of the build, and the newest of the same inputs is used.

mod authorities;
mod built;
mod commands;
mod locks;
mod pins;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use include_dir::{Dir, include_dir};
use jiff::Timestamp;

pub use built::newest;
pub use commands::{Command, command_texts, commands};
pub use locks::InUse;
pub use pins::{Pin, digest_in, pins};

use super::Error;
use super::policy::SECCOMP;
use crate::config::{self, Profile};
use crate::engine::{BuildRequest, BuildStep, Engine, ImageFacts};
use crate::text::fingerprint;
use built::{Built, By};

static DOCKERFILE: &[u8] = include_bytes!("../../../Dockerfile");
static AGENTS: &[u8] = include_bytes!("../../../config/AGENTS.md");
static GUEST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/image");
static OPENCODE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/.opencode");

/// The label by which Podman finds the profile of system calls where it sees none of our files.
const PROFILE_LABEL: &str = "io.containers.seccomp.profile";

/// Returns true where an image has our profile of system calls with it.
pub fn has_profile(image: &ImageFacts) -> bool {
    image.labels.get(PROFILE_LABEL).is_some_and(|profile| profile == SECCOMP)
}

/// What `scripts/base-image` makes where no registry can be reached.
const LOCAL_BASE: &str = "sandbox-mcp-base:bookworm";
const CA_FILE: &str = "image/ca/extra.crt";
/// The step of the Dockerfile that installs Debian's packages.
const PACKAGES: &str = "/opt/sandbox/build/packages";

/// Longest wait for a registry's first word about a base that is there already: one that cannot be
/// reached often hangs.
const FIRST_WORD: Duration = Duration::from_secs(15);

/// Bytes of a hash in an image's name.
const HASH: usize = 6;

/// A build that a person asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Build also where the image is there: without the engine's cache, on the newest base.
    pub refresh: bool,
    /// Leave the images that the new one takes the place of.
    pub keep_old: bool,
}

/// The image of a run that begins.
#[derive(Debug)]
pub struct Chosen {
    pub name: String,
    /// To be dropped when a container is made from it.
    pub in_use: InUse,
}

/// Everything that determines an image but its base.
#[derive(Debug)]
pub struct Inputs {
    files: BTreeMap<String, Vec<u8>>,
    found_ca: Option<Vec<u8>>,
    args: BTreeMap<&'static str, String>,
    bases: Vec<String>,
    ready: Option<String>,
    /// A hash of what the configuration asks for, the same in each version of this program.
    settings: String,
    max_age: u64,
}

impl Inputs {
    pub fn new(config: &config::Image) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        files.insert("Dockerfile".to_owned(), DOCKERFILE.to_vec());
        files.insert("config/AGENTS.md".to_owned(), AGENTS.to_vec());
        files.insert("config/seccomp.json".to_owned(), SECCOMP.as_bytes().to_vec());
        collect("image", &GUEST, &mut files);
        files.remove(CA_FILE);
        collect(".opencode", &OPENCODE, &mut files);
        // Only a configured bundle is among the inputs. The one that is found serves the build as
        // it may; the image must not depend on which program's environment we were started from.
        let mut found_ca = None;
        match config.ca_bundle.as_deref() {
            Some(path) => drop(files.insert(CA_FILE.to_owned(), authorities::read_bundle(path)?)),
            None => found_ca = Some(authorities::found_bundle()?),
        }
        let profile = match config.profile {
            Profile::Lean => "lean",
            Profile::Standard => "standard",
            Profile::Full => "full",
        };
        let mut packages = config.packages.clone();
        packages.sort();
        let args = BTreeMap::from([
            ("PROFILE", profile.to_owned()),
            ("EXTRA_PACKAGES", packages.join(" ")),
        ]);
        let bases = match &config.base {
            Some(base) => vec![base.clone()],
            None => vec![LOCAL_BASE.to_owned(), pins::public_base().to_owned()],
        };
        let ca = files.get(CA_FILE).map(Vec::as_slice).unwrap_or_default();
        let asked = args.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let base = config.base.as_deref().unwrap_or_default();
        let settings = fingerprint(asked.chain([base.as_bytes(), ca]), HASH);
        let (ready, max_age) = (config.name.clone(), config.max_age);
        Ok(Self { files, found_ca, args, bases, ready, settings, max_age })
    }

    /// The hash of everything that goes into the image on one base.
    fn hash(&self, base: &str) -> String {
        let args = self.args.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        let files = self.files.iter().flat_map(|(path, content)| [path.as_bytes(), content]);
        fingerprint([base.as_bytes()].into_iter().chain(args).chain(files), HASH)
    }

    /// Each base that would do, in order, and the name of the image on it without the time of its
    /// build. None when a ready image is configured.
    pub fn choices(&self) -> Vec<(&str, String)> {
        let bases = if self.ready.is_some() { &[][..] } else { &self.bases };
        bases.iter().map(|base| (base.as_str(), built::name_of(&self.hash(base)))).collect()
    }

    /// The image to use, if the engine has it already.
    pub async fn find(&self, engine: &Engine) -> Result<Option<String>, Error> {
        if let Some(image) = &self.ready {
            return match engine.image(image).await? {
                Some(_) => Ok(Some(image.clone())),
                None => Err(Error::NoImage { image: image.clone() }),
            };
        }
        Ok(self.newest(&built::all(engine).await?).map(|built| built.name().to_owned()))
    }

    /// The newest of these that has the same inputs, on whichever base.
    fn newest<'b>(&self, all: &'b [Built]) -> Option<&'b Built> {
        let hashes: Vec<_> = self.bases.iter().map(|base| self.hash(base)).collect();
        let same = |one: &&Built| one.hash.as_ref().is_some_and(|hash| hashes.contains(hash));
        all.iter().filter(same).max_by_key(|one| one.at)
    }

    /// The image for a run, built if it has to be. `progress` is told every line of the build.
    pub async fn ensure(
        &self,
        engine: &Engine,
        state: &Path,
        progress: impl Fn(&str),
    ) -> Result<Chosen, Error> {
        let in_use = locks::use_images(state).await?;
        if let Some(name) = self.find(engine).await? {
            return Ok(Chosen { name, in_use });
        }
        drop(in_use);
        let image = self.make(engine, state, By::Run, Asked::default(), progress).await?;
        let in_use = locks::use_images(state).await?;
        // Meanwhile somebody may have built it anew, and removed the one that was just made.
        match self.find(engine).await? {
            Some(name) => Ok(Chosen { name, in_use }),
            None => Err(Error::NoImage { image }),
        }
    }

    /// Builds the image where it is not there, or where it is asked for anew. Returns its name.
    /// `progress` is told every line of the build.
    pub async fn build(
        &self,
        engine: &Engine,
        state: &Path,
        asked: Asked,
        progress: impl Fn(&str),
    ) -> Result<String, Error> {
        match &self.ready {
            Some(image) if asked.refresh => return Err(Error::Ready { image: image.clone() }),
            _ => {}
        }
        match self.find(engine).await? {
            Some(image) if !asked.refresh => Ok(image),
            _ => self.make(engine, state, By::Person, asked, progress).await,
        }
    }

    async fn make(
        &self,
        engine: &Engine,
        state: &Path,
        by: By,
        asked: Asked,
        progress: impl Fn(&str),
    ) -> Result<String, Error> {
        let _lock = locks::build(state).await?;
        let before = built::all(engine).await?;
        let last = self.newest(&before);
        // Another process may have built it while we waited.
        if let Some(image) = last.filter(|_| !asked.refresh) {
            return Ok(image.name().to_owned());
        }
        let base = self.base(engine, asked.refresh, &progress).await?;
        let name = built::stamped(&self.hash(&base), built::next(last.map(|image| image.at)));
        let anew = if asked.refresh { "without the cache" } else { "once" };
        progress(&format!("building {name} on {base}; this happens {anew} and takes some minutes"));
        let mut args: HashMap<String, String> =
            self.args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        args.insert("BASE".into(), base);
        let request = BuildRequest {
            tag: name.clone(),
            args,
            labels: HashMap::from([
                (built::LABEL.into(), name.clone()),
                (built::SETTINGS_LABEL.into(), self.settings.clone()),
                (PROFILE_LABEL.into(), SECCOMP.to_owned()),
            ]),
            context: self.archive()?.into(),
            cache: !asked.refresh,
        };
        engine.build(request, &progress).await?;
        let after = built::all(engine).await?;
        let Some(new) = self.newest(&after) else { return Err(Error::NoImage { image: name }) };
        if !asked.keep_old {
            let old = built::older(&after, new, by, self.max_age, &self.bases);
            // The new image is there, which is what was asked for.
            if let Err(error) = remove(engine, state, &old, &progress).await {
                tracing::warn!("older images remain: {error}");
            }
        }
        Ok(new.name().to_owned())
    }

    /// The first base that the engine has or can get; the newest one if it is to be `fresh`.
    async fn base(
        &self,
        engine: &Engine,
        fresh: bool,
        progress: &impl Fn(&str),
    ) -> Result<String, Error> {
        let mut why = String::new();
        for base in &self.bases {
            if let Some(facts) = engine.image(base).await? {
                if fresh {
                    renew(engine, base, &facts.digests, progress).await;
                }
                return Ok(base.clone());
            }
            // A base that only `scripts/base-image` makes is in no registry.
            if base == LOCAL_BASE {
                continue;
            }
            progress(&format!("pulling {base}"));
            match engine.pull(base, None, progress).await {
                Ok(()) => return Ok(base.clone()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(Error::NoBase { why })
    }

    /// The build context.
    fn archive(&self) -> Result<Vec<u8>, Error> {
        let io = |source| Error::Io { what: "pack the build context".into(), source };
        let mut archive = tar::Builder::new(Vec::new());
        let ca = self.found_ca.iter().map(|found| (CA_FILE, found));
        let files = self.files.iter().map(|(path, content)| (path.as_str(), content)).chain(ca);
        for (path, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append_data(&mut header, path, content.as_slice()).map_err(io)?;
        }
        archive.into_inner().map_err(io)
    }
}

/// Pulls a base anew. Where that cannot be, the one that is there serves, and is told of.
async fn renew(engine: &Engine, base: &str, digests: &[String], progress: &impl Fn(&str)) {
    if base == LOCAL_BASE {
        return progress(&format!(
            "{base} was made on this machine and stays; `scripts/base-image --fresh` of the source \
             makes it anew"
        ));
    }
    // A name of this machine's own may be a stranger's in a registry.
    if digests.is_empty() {
        return progress(&format!("{base} is from no registry and stays; make it anew yourself"));
    }
    progress(&format!("pulling {base}"));
    if let Err(error) = engine.pull(base, Some(FIRST_WORD), progress).await {
        progress(&format!("{base} stays as it is: {error}"));
    }
}

/// Removes images that no container is made from. The engine keeps the others.
async fn remove(
    engine: &Engine,
    state: &Path,
    old: &[&Built],
    progress: &impl Fn(&str),
) -> Result<(), Error> {
    if old.is_empty() {
        return Ok(());
    }
    let Some(_alone) = locks::remove_images(state).await? else {
        progress("older images stay, because runs begin; the next build removes them");
        return Ok(());
    };
    // By name and not by id: other names that people gave the same image stay.
    for name in old.iter().flat_map(|image| &image.names) {
        match engine.remove_image(name).await {
            Ok(()) => progress(&format!("removed {name}")),
            Err(error) if error.is_conflict() => {
                progress(&format!("{name} stays, because a container uses it"));
            }
            Err(error) if error.is_missing() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// When the packages of an image were installed. A build takes them from the engine's cache where
/// it can, so that is not when the image was built. None for an image that is not ours.
pub fn packages_from(steps: &[BuildStep]) -> Option<Timestamp> {
    let installed = steps.iter().filter(|step| step.command.contains(PACKAGES));
    Timestamp::from_second(installed.map(|step| step.at).max()?).ok()
}

fn collect(prefix: &str, dir: &Dir<'_>, files: &mut BTreeMap<String, Vec<u8>>) {
    for file in dir.files() {
        files.insert(format!("{prefix}/{}", file.path().display()), file.contents().to_vec());
    }
    for dir in dir.dirs() {
        collect(prefix, dir, files);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(config: &config::Image) -> Inputs {
        Inputs::new(config).expect("inputs")
    }

    #[test]
    fn a_changed_input_is_another_image() {
        let plain = inputs(&config::Image::default());
        let same = inputs(&config::Image::default());
        assert_eq!(plain.hash("base"), same.hash("base"));
        assert_ne!(plain.hash("base"), plain.hash("other base"));
        let lean = inputs(&config::Image { profile: Profile::Lean, ..Default::default() });
        assert_ne!(plain.hash("base"), lean.hash("base"));
        let more = inputs(&config::Image { packages: vec!["jo".into()], ..Default::default() });
        assert_ne!(plain.hash("base"), more.hash("base"));
    }

    #[test]
    fn other_settings_are_another_hash_and_the_age_is_none() {
        let plain = inputs(&config::Image::default());
        let lean = inputs(&config::Image { profile: Profile::Lean, ..Default::default() });
        assert_ne!(plain.settings, lean.settings);
        let based = inputs(&config::Image { base: Some("x".into()), ..Default::default() });
        assert_ne!(plain.settings, based.settings);
        let aged = inputs(&config::Image { max_age: 5, ..Default::default() });
        assert_eq!(plain.settings, aged.settings);
        assert_eq!(plain.hash("base"), aged.hash("base"));
    }

    #[test]
    fn the_age_is_that_of_the_packages() {
        let step = |at, command: &str| BuildStep { at, command: command.into() };
        let run = String::from_utf8_lossy(DOCKERFILE).lines().find_map(|line| {
            let command = line.strip_prefix("RUN ").filter(|line| line.contains(PACKAGES))?;
            Some(command.to_owned())
        });
        let run = format!("|2 PROFILE=lean /bin/sh -c {}", run.expect("the step"));
        let copy = "/bin/sh -c #(nop) COPY dir:0a in /opt/sandbox/packages/ ";
        let steps = [step(50, "LABEL"), step(40, copy), step(30, &run), step(10, &run)];
        assert_eq!(packages_from(&steps).map(Timestamp::as_second), Some(30));
        assert_eq!(packages_from(&steps[..2]), None);
    }

    #[test]
    fn the_context_holds_what_the_dockerfile_copies() {
        let inputs = inputs(&config::Image::default());
        let dockerfile = String::from_utf8_lossy(DOCKERFILE);
        let copies = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
        for copy in copies {
            let words: Vec<_> = copy.split_whitespace().collect();
            for source in &words[..words.len() - 1] {
                let mut known = inputs.files.keys().map(String::as_str).chain([CA_FILE]);
                let found = known.any(|path| path.starts_with(source.trim_end_matches('/')));
                assert!(found, "{source} is copied but not embedded");
            }
        }
        assert!(commands().contains(&"git-commit".to_owned()));
    }

    #[test]
    fn a_missing_bundle_is_named() {
        let config = config::Image { ca_bundle: Some("/nowhere.pem".into()), ..Default::default() };
        let error = Inputs::new(&config).expect_err("no such file").to_string();
        assert!(error.contains("/nowhere.pem"), "{error}");
    }
}
