//! Finding the engine and learning what it is.

use std::borrow::Cow;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ssh::Tunnel;
use super::{Error, api};

/// Longest time for an engine to say that it is there: a Podman that its socket starts takes some
/// seconds on a slow machine.
const PING_TIMEOUT: Duration = Duration::from_secs(9);

/// The name that Podman gives itself among its components.
const PODMAN: &str = "Podman Engine";

/// Seconds for one API call; long enough for a busy engine to remove a container.
const CALL_TIMEOUT: u64 = 60;

/// A connection to one engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(super) docker: Docker,
    host: String,
    /// The way to an engine whose own socket cannot be connected to.
    tunnel: Option<Arc<Tunnel>>,
    because: String,
    kind: Kind,
}

/// Engines that speak Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman { is_rootless: bool },
}

/// An engine that could be used, and why we think so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub host: String,
    pub because: String,
    /// Named by the user: a failure there is an error, not a reason to look further.
    chosen: bool,
    /// The folder of `ca.pem`, `cert.pem` and `key.pem`, where TLS is spoken.
    certificates: Option<PathBuf>,
}

/// What the engine says of itself.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    pub host: String,
    pub name: String,
    pub version: String,
    pub api_version: String,
    pub runc_version: Option<String>,
    pub kernel: String,
    pub rootless: bool,
    pub userns_remap: bool,
    pub seccomp: bool,
    pub cgroup_version: String,
    /// Which limits the engine can set on this kernel.
    pub memory_limit: bool,
    pub swap_limit: bool,
    pub pids_limit: bool,
    pub cpu_limit: bool,
    pub storage_driver: String,
    /// Where the engine keeps images and containers.
    pub root_dir: Option<String>,
    pub runtimes: Vec<String>,
    pub default_runtime: Option<String>,
    pub architecture: String,
    pub cpus: i64,
    pub memory: i64,
    /// Whether the containers' kernel is this machine's, so that unix sockets can be shared.
    pub same_kernel: bool,
    /// What the engine itself warns of.
    pub warnings: Vec<String>,
}

impl Facts {
    /// Returns true for a rootless Docker. A rootless Podman keeps its user's number inside.
    pub fn makes_its_user_root(&self) -> bool {
        self.rootless && self.name == "docker"
    }
}

impl Engine {
    /// The first engine that answers: the configured one, `DOCKER_HOST`, `CONTAINER_HOST`, the
    /// current Docker context, then the usual sockets.
    pub async fn connect(configured: Option<&str>) -> Result<Self, Error> {
        let mut tried = Vec::new();
        let mut denied = None;
        for candidate in candidates(configured) {
            match Self::open(&candidate).await {
                Ok(engine) => {
                    tracing::debug!(host = candidate.host, because = candidate.because, "engine");
                    return Ok(engine);
                }
                Err(error) if candidate.chosen => return Err(error),
                // Another one may be this user's own.
                Err(error @ Error::Denied { .. }) => denied = denied.or(Some(error)),
                Err(_) => tried.push(format!("{} ({})", candidate.host, candidate.because)),
            }
        }
        Err(denied.unwrap_or(Error::NotFound { tried }))
    }

    async fn open(candidate: &Candidate) -> Result<Self, Error> {
        let host = &candidate.host;
        let unsupported = |why: &str| Error::Unsupported { host: host.into(), why: why.into() };
        let mut tunnel = None;
        let mut near = Cow::Borrowed(candidate);
        if host.starts_with("ssh://") {
            let opened = Box::pin(Tunnel::open(host)).await.map_err(|why| unsupported(&why))?;
            near.to_mut().host = opened.host();
            tunnel = Some(Arc::new(opened));
        }
        let mut docker = client(&near).map_err(|error| {
            let secured = candidate.certificates.as_deref().map(|folder| {
                format!(" (TLS with ca.pem, cert.pem and key.pem of {})", folder.display())
            });
            unsupported(&format!("{error}{}", secured.unwrap_or_default()))
        })?;
        docker.set_timeout(Duration::from_secs(CALL_TIMEOUT));
        match tokio::time::timeout(PING_TIMEOUT, docker.version()).await {
            Ok(Ok(version)) => {
                let mut components = version.components.iter().flatten();
                let is_podman = components.any(|component| component.name == PODMAN);
                let how = if candidate.chosen { "named by" } else { "the usual socket of" };
                let because = format!("{how} {}", candidate.because);
                let kind = Kind::Docker;
                let mut engine = Self { docker, host: host.clone(), tunnel, because, kind };
                if is_podman && candidate.certificates.is_some() {
                    return Err(unsupported(
                        "it is Podman over TLS, which is not spoken; name its socket",
                    ));
                } else if is_podman {
                    engine.kind = Kind::Podman { is_rootless: engine.is_rootless_podman().await? };
                }
                Ok(engine)
            }
            Ok(Err(error)) if denied(host) => {
                Err(Error::Denied { host: host.into(), why: error.to_string() })
            }
            Ok(Err(error)) => Err(unsupported(&format!("it does not answer: {error}"))),
            Err(_) => Err(Error::TimedOut { verb: "answer", seconds: PING_TIMEOUT.as_secs() }),
        }
    }

    /// The other usual sockets that are there, in words.
    pub fn others(&self) -> Vec<String> {
        let home = env::var_os("HOME").map(PathBuf::from);
        let is_there = |candidate: &Candidate| {
            let path = candidate.host.strip_prefix("unix://").map(Path::new);
            candidate.host != self.host && path.is_some_and(Path::exists)
        };
        let others = usual(home.as_deref()).into_iter().filter(is_there);
        others.map(|other| format!("{} at {}", other.because, other.host)).collect()
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address that is connected to.
    pub(super) fn address(&self) -> String {
        self.tunnel.as_ref().map_or_else(|| self.host.clone(), |tunnel| tunnel.host())
    }

    /// What led to this engine, in words.
    pub fn because(&self) -> &str {
        &self.because
    }

    pub async fn facts(&self) -> Result<Facts, Error> {
        let (info, version) = tokio::try_join!(self.docker.info(), self.docker.version())
            .map_err(api("describe itself"))?;
        let options = info.security_options.unwrap_or_default();
        let option = |name: &str| options.iter().any(|o| o.contains(&format!("name={name}")));
        let component = |name: &str| {
            version.components.iter().flatten().find(|c| c.name == name).map(|c| c.version.clone())
        };
        let kernel = info.kernel_version.unwrap_or_default();
        let mut runtimes: Vec<_> = info.runtimes.unwrap_or_default().into_keys().collect();
        runtimes.sort();
        let rootless = match self.kind {
            Kind::Docker => option("rootless"),
            Kind::Podman { is_rootless } => is_rootless,
        };
        let cgroup_version = info.cgroup_version.map_or_else(|| "1".into(), |v| v.to_string());
        // A rootless engine claims limits there and applies none.
        let limits = !(rootless && cgroup_version.trim_start_matches('v') == "1");
        Ok(Facts {
            host: self.host.clone(),
            name: match self.kind {
                Kind::Docker => "docker",
                Kind::Podman { .. } => "podman",
            }
            .into(),
            version: version.version.unwrap_or_default(),
            api_version: version.api_version.unwrap_or_default(),
            runc_version: component("runc"),
            rootless,
            userns_remap: option("userns"),
            seccomp: option("seccomp"),
            cgroup_version,
            memory_limit: limits && info.memory_limit.unwrap_or_default(),
            swap_limit: limits && info.swap_limit.unwrap_or_default(),
            pids_limit: limits && info.pids_limit.unwrap_or_default(),
            cpu_limit: limits && info.cpu_cfs_quota.unwrap_or_default(),
            storage_driver: info.driver.unwrap_or_default(),
            root_dir: info.docker_root_dir,
            runtimes,
            default_runtime: info.default_runtime,
            architecture: info.architecture.unwrap_or_default(),
            cpus: info.ncpu.unwrap_or_default(),
            memory: info.mem_total.unwrap_or_default(),
            same_kernel: own_kernel().is_some_and(|own| own == kernel),
            kernel,
            warnings: info.warnings.unwrap_or_default(),
        })
    }
}

fn client(candidate: &Candidate) -> Result<Docker, bollard::errors::Error> {
    let host = &candidate.host;
    match &candidate.certificates {
        Some(folder) => Docker::connect_with_ssl(
            host,
            &folder.join("key.pem"),
            &folder.join("cert.pem"),
            &folder.join("ca.pem"),
            CALL_TIMEOUT,
            bollard::API_DEFAULT_VERSION,
        ),
        // By itself it would speak TLS where the variable is there and empty.
        None if host.starts_with("tcp://") => {
            Docker::connect_with_http(host, CALL_TIMEOUT, bollard::API_DEFAULT_VERSION)
        }
        None => Docker::connect_with_host(host),
    }
}

/// All engines worth a try, in order.
fn candidates(configured: Option<&str>) -> Vec<Candidate> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let home = env::var_os("HOME").map(PathBuf::from);
    let folder = docker_folder(home.as_deref());
    let chosen = |host: String, because: &str| {
        let asks = host.starts_with("tcp://") && set("DOCKER_TLS_VERIFY").is_some();
        let certificates = (asks || host.starts_with("https://")).then(|| {
            set("DOCKER_CERT_PATH").map(PathBuf::from).or(folder.clone()).unwrap_or_default()
        });
        Candidate { host, because: because.into(), chosen: true, certificates }
    };
    if let Some(host) = configured {
        return vec![chosen(host.to_owned(), "engine.host")];
    }
    for variable in ["DOCKER_HOST", "CONTAINER_HOST"] {
        if let Some(host) = set(variable) {
            return vec![chosen(host, variable)];
        }
    }
    if let Some(context) = folder.as_deref().and_then(current_context) {
        return vec![context];
    }
    usual(home.as_deref())
}

/// The usual sockets.
fn usual(home: Option<&Path>) -> Vec<Candidate> {
    let runtime = env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{}", own_uid())), PathBuf::from);
    let mut sockets = vec![
        (PathBuf::from("/var/run/docker.sock"), "Docker"),
        (runtime.join("docker.sock"), "rootless Docker"),
        (runtime.join("podman/podman.sock"), "rootless Podman"),
        (PathBuf::from("/run/podman/podman.sock"), "Podman"),
    ];
    for (path, because) in [
        (".colima/default/docker.sock", "Colima"),
        (".orbstack/run/docker.sock", "OrbStack"),
        (".docker/run/docker.sock", "Docker Desktop"),
        (".local/share/containers/podman/machine/podman.sock", "Podman machine"),
    ] {
        sockets.extend(home.map(|home| (home.join(path), because)));
    }
    sockets
        .into_iter()
        .map(|(path, because)| Candidate {
            host: format!("unix://{}", path.display()),
            because: because.into(),
            chosen: false,
            certificates: None,
        })
        .collect()
}

/// The folder of Docker's own settings.
fn docker_folder(home: Option<&Path>) -> Option<PathBuf> {
    let named = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    named.or_else(|| Some(home?.join(".docker")))
}

/// The engine of the current Docker context in Docker's folder, unless that is the default one.
fn current_context(folder: &Path) -> Option<Candidate> {
    let name = env::var("DOCKER_CONTEXT").ok().filter(|name| !name.is_empty()).or_else(|| {
        let config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).ok()?).ok()?;
        Some(config["currentContext"].as_str()?.to_owned())
    })?;
    if name == "default" {
        return None;
    }
    let digest = crate::text::hex(&Sha256::digest(&name));
    let meta = folder.join("contexts/meta").join(&digest).join("meta.json");
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(meta).ok()?).ok()?;
    let host = meta["Endpoints"]["docker"]["Host"].as_str()?.to_owned();
    let certificates = folder.join("contexts/tls").join(digest).join("docker");
    Some(Candidate {
        certificates: (!host.starts_with("unix://") && certificates.is_dir())
            .then_some(certificates),
        host,
        because: format!("Docker context `{name}`"),
        chosen: true,
    })
}

/// Whether the socket is there but not for us.
fn denied(host: &str) -> bool {
    host.strip_prefix("unix://").is_some_and(|path| {
        std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

fn own_kernel() -> Option<String> {
    Some(std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?.trim().to_owned())
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_engine_is_the_only_candidate() {
        let found = candidates(Some("unix:///nowhere.sock"));
        assert_eq!(found.len(), 1);
        assert!(found[0].chosen);
    }

    #[test]
    fn the_current_context_is_read_as_docker_writes_it() {
        let home = tempfile::tempdir().expect("temp dir");
        let docker = home.path().join(".docker");
        // The folder's name is the SHA-256 of `colima`.
        let digest = crate::text::hex(&Sha256::digest(b"colima"));
        let meta = docker.join("contexts/meta").join(digest);
        std::fs::create_dir_all(&meta).expect("folders");
        std::fs::write(docker.join("config.json"), r#"{"currentContext":"colima"}"#)
            .expect("write");
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"colima","Endpoints":{"docker":{"Host":"unix:///c.sock"}}}"#,
        )
        .expect("write");
        let found = current_context(&docker).expect("a context");
        assert_eq!(
            (&*found.host, &*found.because, found.certificates),
            ("unix:///c.sock", "Docker context `colima`", None)
        );
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_named() {
        let error = Engine::connect(Some("unix:///nowhere.sock")).await.expect_err("no engine");
        assert!(error.to_string().contains("/nowhere.sock"), "{error}");
    }
}
