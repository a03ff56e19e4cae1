//! The image: built through the engine's API from files inside this program, and tagged by a hash
//! of everything that goes into it, so that a changed input is a new image and an unchanged one
//! costs one look.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use include_dir::{Dir, File, include_dir};
use sha2::{Digest, Sha256};

use super::Error;
use crate::config::{self, Profile};
use crate::engine::{BuildRequest, Engine};

static DOCKERFILE: &[u8] = include_bytes!("../../Dockerfile");
static AGENTS: &[u8] = include_bytes!("../../config/AGENTS.md");
static GUEST: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/image");
static OPENCODE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/.opencode");

/// What `scripts/base-image` makes where no registry can be reached.
const LOCAL_BASE: &str = "sandbox-mcp-base:bookworm";
/// Debian's own image. Its tag is pinned; a digest could not be read from any source that can be
/// named here.
const PUBLIC_BASE: &str = "debian:bookworm-slim";
const CA_FILE: &str = "image/ca/extra.crt";

/// Where people's own certificate authorities usually are, when the configuration names none.
const CA_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"];

/// Everything that determines an image but its base.
#[derive(Debug)]
pub struct Inputs {
    files: BTreeMap<String, Vec<u8>>,
    found_ca: Option<Vec<u8>>,
    args: BTreeMap<&'static str, String>,
    bases: Vec<String>,
    ready: Option<String>,
}

impl Inputs {
    pub fn new(config: &config::Image) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        files.insert("Dockerfile".to_owned(), DOCKERFILE.to_vec());
        files.insert("config/AGENTS.md".to_owned(), AGENTS.to_vec());
        collect("image", &GUEST, &mut files);
        files.remove(CA_FILE);
        collect(".opencode", &OPENCODE, &mut files);
        // Only a configured bundle is among the inputs. The one that is found serves the build as
        // it may; the image must not depend on which program's environment we were started from.
        let mut found_ca = None;
        match config.ca_bundle.as_deref() {
            Some(path) => drop(files.insert(CA_FILE.to_owned(), read_bundle(path)?)),
            None => found_ca = Some(found_bundle()?),
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
            None => vec![LOCAL_BASE.to_owned(), PUBLIC_BASE.to_owned()],
        };
        Ok(Self { files, found_ca, args, bases, ready: config.name.clone() })
    }

    /// The tag for one base.
    fn tag(&self, base: &str) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(base.as_bytes());
        for (name, value) in &self.args {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for (path, content) in &self.files {
            add(path.as_bytes());
            add(content);
        }
        format!("sandbox-mcp:{}", crate::text::hex(&hash.finalize()[..6]))
    }

    /// Each base that would do, in order, and the tag of the image on it. None when a ready image
    /// is configured.
    pub fn choices(&self) -> Vec<(&str, String)> {
        let bases = if self.ready.is_some() { &[][..] } else { &self.bases };
        bases.iter().map(|base| (base.as_str(), self.tag(base))).collect()
    }

    /// The image to use, if the engine has it already.
    pub async fn find(&self, engine: &Engine) -> Result<Option<String>, Error> {
        let names: Vec<String> = match &self.ready {
            Some(name) => vec![name.clone()],
            None => self.bases.iter().map(|base| self.tag(base)).collect(),
        };
        for name in names {
            if engine.image(&name).await?.is_some() {
                return Ok(Some(name));
            }
        }
        match &self.ready {
            Some(name) => Err(Error::NoImage { image: name.clone() }),
            None => Ok(None),
        }
    }

    /// The image to use, built if it has to be. `progress` is told every line of the build.
    pub async fn ensure(
        &self,
        engine: &Engine,
        state: &Path,
        progress: impl Fn(&str),
    ) -> Result<String, Error> {
        if let Some(image) = self.find(engine).await? {
            return Ok(image);
        }
        let _lock = build_lock(state).await?;
        // Another process may have built it while we waited.
        if let Some(image) = self.find(engine).await? {
            return Ok(image);
        }
        let base = self.base(engine, &progress).await?;
        let tag = self.tag(&base);
        progress(&format!("building {tag} on {base}; this happens once and takes some minutes"));
        let mut args: HashMap<String, String> =
            self.args.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        args.insert("BASE".into(), base);
        let request = BuildRequest {
            tag: tag.clone(),
            args,
            labels: HashMap::from([("sandbox-mcp.image".into(), tag.clone())]),
            context: self.archive()?.into(),
        };
        engine.build(request, progress).await?;
        Ok(tag)
    }

    /// The first base that the engine has or can get.
    async fn base(&self, engine: &Engine, progress: &impl Fn(&str)) -> Result<String, Error> {
        let mut why = String::new();
        for base in &self.bases {
            if engine.image(base).await?.is_some() {
                return Ok(base.clone());
            }
            // A base that only `scripts/base-image` makes is in no registry.
            if base == LOCAL_BASE {
                continue;
            }
            progress(&format!("pulling {base}"));
            match engine.pull(base, progress).await {
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

/// One of the agent's commands in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub name: String,
    /// Empty when it has none.
    pub description: String,
    /// What the agent is told; `$ARGUMENTS` stands for what the caller adds.
    pub text: String,
}

/// The agent's commands in the image, by name.
pub fn command_texts() -> Vec<Command> {
    let mut commands: Vec<_> =
        OPENCODE.get_dir("commands").into_iter().flat_map(Dir::files).filter_map(command).collect();
    commands.sort_by(|left, right| left.name.cmp(&right.name));
    commands
}

/// The names of the agent's commands in the image.
pub fn commands() -> Vec<String> {
    command_texts().into_iter().map(|command| command.name).collect()
}

fn command(file: &File<'_>) -> Option<Command> {
    let name = file.path().file_stem()?.to_str()?.to_owned();
    let whole = file.contents_utf8()?;
    let parts = whole.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    let (head, text) = parts.unwrap_or(("", whole));
    let description =
        head.lines().find_map(|line| line.strip_prefix("description:")).unwrap_or_default();
    Some(Command { name, description: description.trim().to_owned(), text: text.trim().to_owned() })
}

fn collect(prefix: &str, dir: &Dir<'_>, files: &mut BTreeMap<String, Vec<u8>>) {
    for file in dir.files() {
        files.insert(format!("{prefix}/{}", file.path().display()), file.contents().to_vec());
    }
    for dir in dir.dirs() {
        collect(prefix, dir, files);
    }
}

fn read_bundle(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Io {
        what: format!("read the CA bundle {}", path.display()),
        source,
    })
}

/// The extra certificate authorities of this machine: the bundle that the environment names, else
/// those that were added by hand, else none.
fn found_bundle() -> Result<Vec<u8>, Error> {
    let named = CA_VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    if let Some(path) = named.into_iter().find(|path| path.is_file()) {
        return read_bundle(&path);
    }
    let Ok(entries) = std::fs::read_dir("/usr/local/share/ca-certificates") else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .collect();
    paths.sort();
    let mut bundle = Vec::new();
    for path in paths {
        bundle.extend(read_bundle(&path)?);
        bundle.push(b'\n');
    }
    Ok(bundle)
}

/// Held while an image is built, so that two processes do not build the same one.
async fn build_lock(state: &Path) -> Result<std::fs::File, Error> {
    let path = state.join("build.lock");
    let io = |source| Error::Io { what: format!("lock {}", path.display()), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(io)?;
    let file = std::fs::File::create(&path).map_err(io)?;
    let held = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
    held.map_err(|error| io(std::io::Error::other(error)))?.map_err(io)
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
        assert_eq!(plain.tag("base"), same.tag("base"));
        assert_ne!(plain.tag("base"), plain.tag("other base"));
        let lean = inputs(&config::Image { profile: Profile::Lean, ..Default::default() });
        assert_ne!(plain.tag("base"), lean.tag("base"));
        let more = inputs(&config::Image { packages: vec!["jo".into()], ..Default::default() });
        assert_ne!(plain.tag("base"), more.tag("base"));
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
