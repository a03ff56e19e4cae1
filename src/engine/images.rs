//! Images: looking, pulling, building.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters as query;
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Engine, Error, api};

/// An image to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    pub tag: String,
    pub args: HashMap<String, String>,
    pub labels: HashMap<String, String>,
    /// A tar archive with a `Dockerfile` at its top.
    pub context: Bytes,
    /// Take steps from the engine's cache.
    pub cache: bool,
}

/// An image found by a label.
#[derive(Clone, Debug)]
pub struct FoundImage {
    pub id: String,
    pub names: Vec<String>,
    pub labels: HashMap<String, String>,
    /// When it was built, in seconds since 1970.
    pub created: i64,
}

/// A step of an image's build.
#[derive(Clone, Debug)]
pub struct BuildStep {
    /// When it was carried out, in seconds since 1970.
    pub at: i64,
    pub command: String,
}

/// What the engine knows of an image.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    pub id: String,
    pub size: i64,
    /// When it was built, as RFC 3339.
    pub created: Option<String>,
    /// Its digests in registries; empty for an image that was made here.
    pub digests: Vec<String>,
    pub labels: HashMap<String, String>,
}

impl Engine {
    /// The image's facts, or none when the engine does not have it.
    pub async fn image(&self, name: &str) -> Result<Option<ImageFacts>, Error> {
        match self.docker.inspect_image(name).await.map_err(api("inspect the image")) {
            Ok(image) => Ok(Some(ImageFacts {
                id: image.id.unwrap_or_default(),
                size: image.size.unwrap_or_default(),
                created: image.created,
                digests: image.repo_digests.unwrap_or_default(),
                labels: image.config.and_then(|config| config.labels).unwrap_or_default(),
            })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every image that carries `label` and is not a mere step to another one.
    pub async fn find_images(&self, label: &str) -> Result<Vec<FoundImage>, Error> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = query::ListImagesOptionsBuilder::new().filters(&filters).build();
        let found = self.docker.list_images(Some(options)).await.map_err(api("list images"))?;
        let found = found.into_iter().map(|one| FoundImage {
            id: one.id,
            names: one.repo_tags,
            labels: one.labels,
            created: one.created,
        });
        Ok(found.collect())
    }

    /// The steps of an image's build, the last one first.
    pub async fn build_steps(&self, image: &str) -> Result<Vec<BuildStep>, Error> {
        let steps =
            self.docker.image_history(image).await.map_err(api("tell the image's steps"))?;
        let steps = steps.into_iter();
        Ok(steps.map(|step| BuildStep { at: step.created, command: step.created_by }).collect())
    }

    /// Takes a name from an image, and with its last name removes it. A conflict where a container
    /// is made from it.
    pub async fn remove_image(&self, name: &str) -> Result<(), Error> {
        let options = query::RemoveImageOptionsBuilder::new().force(false).build();
        let removed = self.docker.remove_image(name, Some(options), None).await;
        removed.map(drop).map_err(api("remove the image"))
    }

    /// Gives an image one more name, `repository:tag`.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), Error> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = query::TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.map_err(api("name the image"))
    }

    /// Pulls an image, telling `progress` each step. It is given up when the registry says nothing
    /// within `first_word`.
    pub async fn pull(
        &self,
        name: &str,
        first_word: Option<Duration>,
        progress: impl Fn(&str),
    ) -> Result<(), Error> {
        let verb = "pull the base image";
        let options = query::CreateImageOptionsBuilder::new().from_image(name).build();
        let mut steps = self.docker.create_image(Some(options), None, None).peekable();
        if let Some(limit) = first_word {
            let first = tokio::time::timeout(limit, std::pin::Pin::new(&mut steps).peek()).await;
            first.map_err(|_| Error::TimedOut { verb, seconds: limit.as_secs() })?;
        }
        while let Some(step) = steps.next().await {
            if let Some(status) = step.map_err(api(verb))?.status {
                progress(&status);
            }
        }
        Ok(())
    }

    /// Builds an image with the classic builder, telling `progress` each line.
    pub async fn build(&self, request: BuildRequest, progress: impl Fn(&str)) -> Result<(), Error> {
        let options = query::BuildImageOptionsBuilder::new()
            .dockerfile("Dockerfile")
            .t(&request.tag)
            .buildargs(&request.args)
            .labels(&request.labels)
            .nocache(!request.cache)
            .rm(true)
            .forcerm(true)
            .build();
        let body = bollard::body_full(request.context);
        let mut lines = self.docker.build_image(options, None, Some(body));
        // The failing command's own words come just before the error.
        let mut recent = std::collections::VecDeque::with_capacity(12);
        while let Some(step) = lines.next().await {
            match step {
                Ok(step) => {
                    for line in step.stream.iter().flat_map(|text| text.lines()) {
                        if recent.len() == 12 {
                            recent.pop_front();
                        }
                        recent.push_back(line.to_owned());
                        progress(line);
                    }
                }
                Err(error) => {
                    let words: Vec<_> = recent.into();
                    return Err(Error::Build { message: format!("{error}\n{}", words.join("\n")) });
                }
            }
        }
        Ok(())
    }
}
