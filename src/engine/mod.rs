//! The Docker Engine API, as far as this project needs it.
//!
//! This room knows bollard and the quirks of engines. It must never know what a sandbox may do:
//! it carries out container descriptions that [`crate::sandbox`] wrote.

mod connect;
mod containers;
mod images;
mod podman;
mod ssh;
mod volumes;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

pub use bollard::models;
pub use connect::{Candidate, Engine, Facts, Kind};
pub use containers::{Attached, Body, Exit, Found, Output};
pub use images::{BuildRequest, BuildStep, FoundImage, ImageFacts};
pub use volumes::FoundVolume;

/// What can go wrong between us and the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no container engine answers; tried {}. Start Docker (`sudo systemctl start docker`), \
         Podman (`systemctl --user start podman.socket`), or set DOCKER_HOST", tried.join(", ")
    )]
    NotFound { tried: Vec<String> },
    #[error("DOCKER_HOST or `engine.host` is `{host}`: {why}")]
    Unsupported { host: String, why: String },
    #[error(
        "the engine at {host} refused us: {why}. Add yourself to its group or use a rootless engine"
    )]
    Denied { host: String, why: String },
    #[error("the engine did not {verb}: {source}")]
    Api { verb: &'static str, source: bollard::errors::Error },
    #[error("the engine went away and did not {verb}; was it stopped or restarted?")]
    Away { verb: &'static str, source: bollard::errors::Error },
    #[error("the engine did not {verb} within {seconds} seconds")]
    TimedOut { verb: &'static str, seconds: u64 },
    #[error("the engine has another volume of the name {name}")]
    VolumeTaken { name: String },
    #[error("the image's build failed: {message}")]
    Build { message: String },
}

impl Error {
    /// Whether the engine says that the thing does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Api {
                source: bollard::errors::Error::DockerResponseServerError { status_code: 404, .. },
                ..
            }
        )
    }

    /// Whether the engine does not answer at all, as while it is restarted.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// Whether this is trouble with a mount, as far as an engine's words tell.
    pub fn is_about_a_mount(&self) -> bool {
        match self {
            Self::Api {
                source: bollard::errors::Error::DockerResponseServerError { message, .. },
                ..
            } => ["mount", "overlay", "volume"].iter().any(|word| message.contains(word)),
            Self::VolumeTaken { .. } => true,
            _ => false,
        }
    }

    /// Returns true where the engine says that it does not find `path`.
    pub fn is_missing_path(&self, path: &Path) -> bool {
        match self {
            Self::Api {
                source: bollard::errors::Error::DockerResponseServerError { message, .. },
                ..
            } => {
                let words = ["bind source path does not exist", "no such file or directory"];
                words.iter().any(|words| message.contains(words))
                    && path.to_str().is_some_and(|path| message.contains(path))
            }
            _ => false,
        }
    }

    /// Returns true where the engine cannot do it in the state that the container is in just now.
    pub fn is_improper(&self) -> bool {
        matches!(
            self,
            Self::Api {
                source: bollard::errors::Error::DockerResponseServerError {
                    status_code: 500,
                    message,
                },
                ..
            } if message.contains("state improper")
        )
    }

    /// Whether the engine is already doing, or has done, what was asked.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::Api {
                source: bollard::errors::Error::DockerResponseServerError {
                    status_code: 304 | 409,
                    ..
                },
                ..
            }
        )
    }
}

/// How long an engine that went away is waited for where something must not be left on it.
const RESTART: Duration = Duration::from_secs(20);

/// Asks again while the engine is away, until it has had the time for a restart.
async fn through_a_restart<F>(mut ask: impl FnMut() -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let until = Instant::now() + RESTART;
    let mut told = false;
    loop {
        match ask().await {
            Err(error) if error.is_away() && Instant::now() < until => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!("{error} Trying for {} more seconds", RESTART.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            answer => return answer,
        }
    }
}

/// Names the verb that failed, so that every message says what was being done.
fn api(verb: &'static str) -> impl FnOnce(bollard::errors::Error) -> Error {
    use bollard::errors::Error as Bollard;
    move |source| match source {
        Bollard::HyperResponseError { .. }
        | Bollard::HyperLegacyError { .. }
        | Bollard::IOError { .. } => Error::Away { verb, source },
        source => Error::Api { verb, source },
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn away() -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        api("remove it")(source.into())
    }

    #[test]
    fn a_path_that_the_engine_misses_is_the_one_that_it_names() {
        let error = |message: &str| {
            let (status_code, message) = (400, message.to_owned());
            api("create it")(bollard::errors::Error::DockerResponseServerError {
                status_code,
                message,
            })
        };
        let docker = error("invalid mount config: bind source path does not exist: /home/a/b");
        let podman = error("crun: cannot stat `/home/a/b`: no such file or directory");
        for error in [docker, podman] {
            assert!(error.is_missing_path(Path::new("/home/a/b")));
            assert!(!error.is_missing_path(Path::new("/home/c")));
        }
        let init = error("exec: \"/opt/sandbox/init\": no such file or directory");
        assert!(!init.is_missing_path(Path::new("/home/a/b")));
        assert!(!error("/home/a/b is busy").is_missing_path(Path::new("/home/a/b")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_comes_back_is_asked_again() {
        let asked = Cell::new(0);
        let answer = through_a_restart(|| async {
            asked.set(asked.get() + 1);
            if asked.get() < 10 { Err(away()) } else { Ok(()) }
        });
        assert!(answer.await.is_ok());
        assert_eq!(asked.get(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_away_is_given_up_and_other_errors_are_told_at_once() {
        let began = Instant::now();
        let answer = through_a_restart(|| async { Err(away()) }).await;
        assert!(answer.is_err_and(|error| error.is_away()));
        assert!(began.elapsed() >= RESTART && began.elapsed() < RESTART * 2);

        let asked = Cell::new(0);
        let answer = through_a_restart(|| async {
            asked.set(asked.get() + 1);
            Err(Error::VolumeTaken { name: "x".into() })
        });
        assert!(matches!(answer.await, Err(Error::VolumeTaken { .. })));
        assert_eq!(asked.get(), 1);
    }
}
