//! Podman's own API, for what its Docker API leaves out.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use super::{Engine, Error, api};

/// Longest wait for an answer: a first container with a user's own mapping copies the whole image.
const LIMIT: Duration = Duration::from_secs(300);

/// Most bytes of an answer.
const LONGEST: usize = 4 << 20;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Engine {
    /// Asks for a path below `/libpod`, and reads the answer as `T`.
    pub(super) async fn podman<T: DeserializeOwned>(
        &self,
        verb: &'static str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Error> {
        let answer = tokio::time::timeout(LIMIT, self.call(method, path, body)).await;
        let answer = answer.map_err(|_| Error::TimedOut { verb, seconds: LIMIT.as_secs() })?;
        let (status, bytes) = answer.map_err(|source| api(verb)(source.into()))?;
        if !status.is_success() {
            let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let message = said["message"]
                .as_str()
                .map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned);
            let status_code = status.as_u16();
            let source = bollard::errors::Error::DockerResponseServerError { status_code, message };
            return Err(Error::Api { verb, source });
        }
        serde_json::from_slice(&bytes).map_err(|source| Error::Api { verb, source: source.into() })
    }

    /// Returns true where the containers' root is the service's own user.
    pub(super) async fn is_rootless_podman(&self) -> Result<bool, Error> {
        let info: Value = self.podman("describe itself", "GET", "info", None).await?;
        info["host"]["security"]["rootless"].as_bool().ok_or_else(|| Error::Unsupported {
            host: self.host().to_owned(),
            why: "it is Podman, and does not say whether it is rootless".into(),
        })
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<(http::StatusCode, Bytes)> {
        let other = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
        let host = self.address();
        let stream: Box<dyn Stream> = match host.split_once("://") {
            Some(("unix", path)) => Box::new(UnixStream::connect(path).await?),
            Some((_, address)) => {
                Box::new(TcpStream::connect(address.trim_end_matches('/')).await?)
            }
            None => Box::new(UnixStream::connect(&host).await?),
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| other(error.into()))?;
        let _carried = AbortOnDropHandle::new(tokio::spawn(connection));
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            // Podman 5 answers to this version, too.
            .uri(format!("/v4.0.0/libpod/{path}"))
            .header(http::header::HOST, "podman")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| other(error.into()))?;
        let answer = sender.send_request(request).await.map_err(|error| other(error.into()))?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(other)?;
        Ok((status, bytes.to_bytes()))
    }
}
