//! Volumes: made for a run, found by their labels, removed.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters as query;

use super::{Engine, Error, api, through_a_restart};

/// A volume found by its labels.
#[derive(Clone, Debug)]
pub struct FoundVolume {
    pub name: String,
    pub labels: HashMap<String, String>,
}

impl Engine {
    /// Creates a volume of the engine's own driver, and returns its path on the engine's machine. An
    /// engine answers with the old one where the name is taken; one that is not what was asked for
    /// is refused.
    pub async fn create_volume(
        &self,
        name: &str,
        options: HashMap<String, String>,
        labels: HashMap<String, String>,
    ) -> Result<PathBuf, Error> {
        let asked = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some("local".into()),
            driver_opts: Some(options.clone()),
            labels: Some(labels.clone()),
            ..Default::default()
        };
        let mut made = self.docker.create_volume(asked).await.map_err(api("create the volume"))?;
        // Podman adds what it read of `o`.
        made.options.retain(|name, _| !["UID", "GID"].contains(&name.as_str()));
        if made.name == name && made.labels == labels && made.options == options {
            Ok(made.mountpoint.into())
        } else {
            Err(Error::VolumeTaken { name: name.to_owned() })
        }
    }

    /// Returns true where there is a volume of this name.
    pub async fn has_volume(&self, name: &str) -> Result<bool, Error> {
        match self.docker.inspect_volume(name).await.map_err(api("inspect the volume")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a volume. One that is gone is a success.
    pub async fn remove_volume(&self, name: &str) -> Result<(), Error> {
        let options = query::RemoveVolumeOptionsBuilder::new().force(true).build();
        let ask = || async {
            let removed = self.docker.remove_volume(name, Some(options.clone())).await;
            removed.map_err(api("remove the volume"))
        };
        match through_a_restart(ask).await {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    /// Every volume that carries `label`.
    pub async fn find_volumes(&self, label: &str) -> Result<Vec<FoundVolume>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = query::ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.docker.list_volumes(Some(options)).await.map_err(api("list volumes"))?;
        let found = found.volumes.unwrap_or_default().into_iter();
        Ok(found.map(|one| FoundVolume { name: one.name, labels: one.labels }).collect())
    }
}
