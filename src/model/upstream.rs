//! One request to the model, whoever it is: a server on the network or the rehearsal in here.
//!
//! Every way in which a request can fail comes out as a [`Fault`]; callers never see the client's
//! own errors.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use reqwest::Url;
use reqwest::header::{
    ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};

use super::{Endpoint, Error, Fault, FaultKind, address, client, rehearsal};

/// How long a server may take to accept a connection. Its host is near, or it is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of an answer, as it arrives.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Fault>> + Send>>;

/// The head of an answer, and its body to come.
pub struct Response {
    pub status: u16,
    /// In lower case and without parameters; empty when the server does not say.
    pub content_type: String,
    /// How long the server asks to wait before the next try.
    pub retry_after: Option<Duration>,
    pub body: Chunks,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Who answers.
#[derive(Clone, Debug)]
pub enum Upstream {
    Server(Server),
    /// [`rehearsal`], in this process.
    Rehearsal,
}

/// A model server on the network.
#[derive(Clone, Debug)]
pub struct Server {
    client: reqwest::Client,
    base: Url,
    headers: HeaderMap,
}

impl Upstream {
    pub fn new(endpoint: &Endpoint) -> Result<Self, Error> {
        if endpoint.is_rehearsal() {
            return Ok(Self::Rehearsal);
        }
        let base = Url::parse(&endpoint.base_url).map_err(|error| Error::BadUrl {
            url: endpoint.base_url.clone(),
            why: error.to_string(),
        })?;
        let client = client::build(&base, CONNECT_TIMEOUT, endpoint.ca_bundle.as_deref())?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        endpoint.credentials().apply(&mut headers)?;
        Ok(Self::Server(Server { client, base, headers }))
    }

    /// Sends `body` to `path` (below `/v1`, such as `/chat/completions`) and returns when the head
    /// of the answer is here. Dropping the returned body closes the connection, which tells the
    /// server to stop.
    pub async fn post(&self, path: &str, body: Bytes) -> Result<Response, Fault> {
        match self {
            Self::Rehearsal => Ok(rehearse(path, &body)),
            Self::Server(server) => {
                let request = server.client.post(address::join(&server.base, path));
                let sent = request.headers(server.headers.clone()).body(body).send().await;
                sent.map(receive).map_err(|error| Fault::from_transport(&error, false))
            }
        }
    }
}

/// What an answer came compressed as, though it was asked for as it is, if that cannot be undone.
pub(super) fn unreadable(headers: &HeaderMap) -> Option<Fault> {
    let encoding = headers.get(CONTENT_ENCODING)?.to_str().unwrap_or("something unknown").trim();
    let message = format!(
        "the server's answer is compressed ({encoding}), although it was asked not to be, and only \
         gzip and deflate are understood"
    );
    let readable = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
    (!readable).then(|| Fault::new(FaultKind::NotJson, &message))
}

fn receive(response: reqwest::Response) -> Response {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content_type = header(CONTENT_TYPE).unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    // The date form is for caches of web pages; model servers send seconds.
    let retry_after = header(RETRY_AFTER).and_then(|text| text.trim().parse::<f64>().ok());
    let retry_after = retry_after.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let status = response.status().as_u16();
    // What can be decoded is, piece by piece, and has no such header any more.
    let body: Chunks = if let Some(fault) = unreadable(response.headers()) {
        stream::once(std::future::ready(Err(fault))).boxed()
    } else {
        let body = response.bytes_stream();
        body.map(|chunk| chunk.map_err(|error| Fault::from_transport(&error, true))).boxed()
    };
    Response { status, content_type, retry_after, body }
}

fn rehearse(path: &str, body: &[u8]) -> Response {
    let (status, content_type, chunks) = rehearsal::respond(path, body);
    let body = stream::iter(chunks.into_iter().map(Ok)).boxed();
    Response { status, content_type: content_type.into(), retry_after: None, body }
}

impl Response {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Reads a whole body of at most `limit` bytes.
    pub async fn read_all(&mut self, limit: usize) -> Result<Bytes, Fault> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.body.next().await {
            let chunk = chunk?;
            if whole.len() + chunk.len() > limit {
                let message = format!("the answer is longer than {limit} bytes");
                return Err(Fault::new(FaultKind::NotJson, &message));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    /// What a status that is no success means.
    pub async fn into_fault(self) -> Fault {
        let status = self.status;
        Fault::from_status(status, &self.into_words().await)
    }

    /// A success in a content type that no model answers with, such as a proxy's login page.
    pub async fn into_misfit(self) -> Fault {
        let kind = self.content_type.clone();
        Fault::from_misfit(&kind, &self.into_words().await)
    }

    /// What arrives in time and within a bound; that it is a fault is certain already.
    async fn into_words(mut self) -> Vec<u8> {
        let mut words = Vec::new();
        let reading = async {
            while let Some(Ok(chunk)) = self.body.next().await {
                words.extend_from_slice(&chunk);
                if words.len() > 64 * 1024 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
        words
    }
}

#[cfg(test)]
mod tests;
