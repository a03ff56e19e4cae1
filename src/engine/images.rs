//! Images: looking, pulling, building.

use std::collections::HashMap;

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
}

/// What the engine knows of an image.
#[derive(Clone, Debug)]
pub struct ImageFacts {
    pub id: String,
    pub size: i64,
    /// When it was built, as RFC 3339.
    pub created: Option<String>,
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
                labels: image.config.and_then(|c| c.labels).unwrap_or_default(),
            })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an image one more name, `repository:tag`.
    pub async fn tag(&self, image: &str, name: &str) -> Result<(), Error> {
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "latest"));
        let options = query::TagImageOptionsBuilder::new().repo(repository).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.map_err(api("name the image"))
    }

    /// Pulls an image, telling `progress` each step.
    pub async fn pull(&self, name: &str, progress: impl Fn(&str)) -> Result<(), Error> {
        let options = query::CreateImageOptionsBuilder::new().from_image(name).build();
        let mut steps = self.docker.create_image(Some(options), None, None);
        while let Some(step) = steps.next().await {
            if let Some(status) = step.map_err(api("pull the base image"))?.status {
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
