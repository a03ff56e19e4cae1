//! One verb of a container's life, one function.

use std::collections::HashMap;
use std::pin::Pin;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use tokio::io::AsyncWrite;

use super::{Engine, Error, api, through_a_restart};

/// The standard streams of a container. Dropping both closes its standard input.
pub struct Attached {
    pub output: Pin<Box<dyn Stream<Item = Result<Output, Error>> + Send>>,
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// A piece of output, cut wherever the engine cut it.
#[derive(Debug)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A container as an engine takes it.
#[derive(Clone, Debug)]
pub enum Body {
    Docker(Box<ContainerCreateBody>),
    /// In the words of Podman's own API.
    Podman(serde_json::Value),
}

/// Podman's answer.
#[derive(Deserialize)]
struct Created {
    #[serde(rename = "Id")]
    id: String,
}

/// How a container ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// The engine saw the kernel kill something in it for want of memory.
    pub out_of_memory: bool,
}

/// A container found by its labels.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: String,
    pub labels: HashMap<String, String>,
    pub running: bool,
}

impl Engine {
    /// Creates a container without a name, because names collide. Returns its id.
    pub async fn create(&self, body: Body) -> Result<String, Error> {
        let verb = "create the container";
        match body {
            Body::Docker(body) => {
                let options = None::<query::CreateContainerOptions>;
                let created = self.docker.create_container(options, *body).await;
                let created = created.map_err(api(verb))?;
                for warning in created.warnings {
                    tracing::warn!("engine: {warning}");
                }
                Ok(created.id)
            }
            // Its warnings are of limits, of which the receipt tells more.
            Body::Podman(spec) => {
                let path = "containers/create";
                let created: Created = self.podman(verb, "POST", path, Some(&spec)).await?;
                Ok(created.id)
            }
        }
    }

    /// Unpacks a tar archive into a folder of a container that may be written to.
    pub async fn unpack(&self, id: &str, folder: &str, archive: Vec<u8>) -> Result<(), Error> {
        let options = query::UploadToContainerOptionsBuilder::new().path(folder).build();
        let archive = bollard::body_full(archive.into());
        let unpacked = self.docker.upload_to_container(id, Some(options), archive).await;
        unpacked.map_err(api("copy into the container"))
    }

    pub async fn attach(&self, id: &str) -> Result<Attached, Error> {
        let options = query::AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            // Present and empty, because Podman otherwise ends at two bytes that may be content.
            .detach_keys("")
            .build();
        let attached = self
            .docker
            .attach_container(id, Some(options))
            .await
            .map_err(api("attach to the container"))?;
        let output = attached.output.filter_map(|piece| async {
            match piece {
                Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                    Some(Ok(Output::Stdout(message)))
                }
                Ok(LogOutput::StdErr { message }) => Some(Ok(Output::Stderr(message))),
                Ok(LogOutput::StdIn { .. }) => None,
                Err(error) => Some(Err(api("stream the container's output")(error))),
            }
        });
        Ok(Attached { output: Box::pin(output), input: attached.input })
    }

    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.docker
            .start_container(id, None::<query::StartContainerOptions>)
            .await
            .map_err(api("start the container"))
    }

    /// Waits for the end. Ask before the container can have ended.
    pub async fn wait(&self, id: &str) -> Result<i64, Error> {
        let options = query::WaitContainerOptionsBuilder::new().condition("not-running").build();
        let mut ends = self.docker.wait_container(id, Some(options));
        match ends.next().await {
            Some(Ok(end)) => Ok(end.status_code),
            // bollard reports any exit code but 0 as an error.
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(api("wait for the container")(error)),
            None => self.inspect(id).await.map(|seen| exit_of(&seen).code),
        }
    }

    pub async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse, Error> {
        self.docker
            .inspect_container(id, None::<query::InspectContainerOptions>)
            .await
            .map_err(api("inspect the container"))
    }

    /// How a container that has ended did so.
    pub async fn exit(&self, id: &str) -> Result<Exit, Error> {
        self.inspect(id).await.map(|seen| exit_of(&seen))
    }

    /// Kills and removes a container with its anonymous volumes. One that is gone is a success.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let ask = || async {
            let removed = self.docker.remove_container(id, Some(options.clone())).await;
            removed.map_err(api("remove the container"))
        };
        match through_a_restart(ask).await {
            Err(error) if error.is_missing() => Ok(()),
            // Podman, of a container that is just ending.
            Err(error) if error.is_improper() => self.remove_later(ask).await,
            // Somebody else is removing it: it is gone when it can no longer be found.
            Err(error) if error.is_conflict() => self.wait_until_gone(id).await,
            other => other,
        }
    }

    /// Asks again until the container has ended.
    async fn remove_later<F>(&self, ask: impl Fn() -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        for _ in 0..50 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            match ask().await {
                Err(error) if error.is_missing() => return Ok(()),
                Err(error) if error.is_improper() => {}
                other => return other,
            }
        }
        ask().await
    }

    async fn wait_until_gone(&self, id: &str) -> Result<(), Error> {
        for _ in 0..100 {
            match self.inspect(id).await {
                Err(error) if error.is_missing() => return Ok(()),
                _ => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
        Err(Error::TimedOut { verb: "remove the container", seconds: 10 })
    }

    /// Every container, running or not, that carries `label`.
    pub async fn find(&self, label: &str) -> Result<Vec<Found>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options =
            query::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let found =
            self.docker.list_containers(Some(options)).await.map_err(api("list containers"))?;
        Ok(found
            .into_iter()
            .filter_map(|one| {
                Some(Found {
                    id: one.id?,
                    labels: one.labels.unwrap_or_default(),
                    running: one.state.is_some_and(|state| state.to_string() == "running"),
                })
            })
            .collect())
    }
}

fn exit_of(seen: &ContainerInspectResponse) -> Exit {
    let state = seen.state.as_ref();
    Exit {
        code: state.and_then(|s| s.exit_code).unwrap_or_default(),
        out_of_memory: state.and_then(|s| s.oom_killed).unwrap_or_default(),
    }
}
