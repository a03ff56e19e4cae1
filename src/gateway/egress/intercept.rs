//! TLS to the host of a credential, opened here so that the credential can be put in.
//!
//! The sandbox speaks with us, under a certificate of this run's authority; we speak with the host,
//! under the host's own. There is one host for one connection, whatever its requests say. What the
//! host says back loses the secret where it stands as it is; a host that gives it back in another
//! form (encoded, compressed against our asking) is not one to lend a secret for.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
};
use http_body::Frame;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::task::AbortOnDropHandle;

use super::answer::{Refused, TLS_DENIED};
use super::authority::Authority;
use super::credential::Credential;
use super::meter::{Meter, Metered};
use super::network::Network;
use super::proxy::{Passed, Proxy, answer_and_close};
use super::{Refusal, head, headers};
use crate::config::Name;
use crate::gateway::Error;
use crate::model::Redactor;

/// The hosts of credentials.
#[derive(Debug)]
pub struct Interceptor {
    hosts: BTreeMap<Name, Host>,
    client: Arc<ClientConfig>,
}

#[derive(Debug)]
struct Host {
    credentials: Vec<Credential>,
    server: Arc<ServerConfig>,
}

impl Interceptor {
    /// Also the authority's certificate, as PEM; without credentials there is neither.
    pub fn new(
        credentials: &[Credential],
        network: &dyn Network,
    ) -> Result<Option<(Self, String)>, Error> {
        if credentials.is_empty() {
            return Ok(None);
        }
        let failed = |why| Error::Authority { why };
        let authority = Authority::new(credentials.iter().map(Credential::host))
            .map_err(|error| failed(error.to_string()))?;
        let client = network.trust().map_err(|error| failed(error.to_string()))?;
        let mut hosts = BTreeMap::new();
        for credential in credentials {
            let name = credential.host();
            if !hosts.contains_key(name) {
                let server = authority.server(name).map_err(failed)?;
                hosts.insert(name.clone(), Host { credentials: Vec::new(), server });
            }
            if let Some(host) = hosts.get_mut(name) {
                host.credentials.push(credential.clone());
            }
        }
        Ok(Some((Self { hosts, client }, authority.pem())))
    }

    pub fn answers_for(&self, head: &head::Head) -> bool {
        head.kind == super::Kind::Connect && head.port == 443 && self.hosts.contains_key(&head.name)
    }

    /// Serves a tunnel for which [`Interceptor::answers_for`]; `hello` was read from it.
    pub async fn serve(
        &self,
        proxy: &Proxy,
        mut stream: UnixStream,
        passed: &Passed,
        hello: Vec<u8>,
    ) {
        let Some(host) = self.hosts.get(&passed.head.name) else { return };
        let meter = proxy.meter();
        let upstream = Mutex::new(None);
        let way = Way { client: &self.client, host, proxy, passed, meter: meter.clone(), upstream };
        match way.open().await {
            Ok(upstream) => *way.upstream.lock().await = Some(upstream),
            Err(reason) => {
                proxy.record(&passed.head, Err(reason));
                return answer_and_close(&mut stream, TLS_DENIED).await;
            }
        }
        proxy.record(&passed.head, Ok(()));
        let (reader, writer) = stream.into_split();
        let io = tokio::io::join(Cursor::new(hello).chain(reader), writer);
        let accepting = TlsAcceptor::from(host.server.clone()).accept(io);
        let stream = match timeout(proxy.bounds.hello_time, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                // Most often a client that was not told to trust the authority.
                return tracing::debug!(%error, "no TLS with the sandbox");
            }
            Err(_) => return tracing::debug!("TLS with the sandbox took too long"),
        };
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(proxy.bounds.head_time)
            .max_headers(64)
            .max_buf_size(proxy.bounds.head_bytes.max(64 * 1024))
            .serve_connection(TokioIo::new(stream), service_fn(|request| way.forward(request)));
        tokio::select! {
            served = serving => if let Err(error) = served {
                tracing::debug!(%error, "a connection with a credential broke");
            },
            () = meter.idle(proxy.bounds.idle_time) => tracing::debug!("an idle one is closed"),
        }
        if proxy.is_spent() {
            proxy.record(&passed.head, Err(Refusal::Bytes));
        }
    }
}

/// From one connection of the sandbox to its host.
struct Way<'a> {
    client: &'a Arc<ClientConfig>,
    host: &'a Host,
    proxy: &'a Proxy,
    passed: &'a Passed,
    meter: Arc<Meter>,
    upstream: Mutex<Option<Upstream>>,
}

struct Upstream {
    sender: SendRequest<BoxBody<Bytes, hyper::Error>>,
    _connection: AbortOnDropHandle<()>,
}

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

impl Way<'_> {
    async fn open(&self) -> Result<Upstream, Refusal> {
        let stream = Metered::new(self.proxy.connect(self.passed).await?, self.meter.clone());
        let name = self.passed.head.name.to_string();
        let name = name.try_into().map_err(|_| Refusal::BadName)?;
        let connecting = TlsConnector::from(self.client.clone()).connect(name, stream);
        let stream = match timeout(self.proxy.bounds.connect_time, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, host = %self.passed.head.name, "no TLS with the host");
                return Err(Refusal::UpstreamTls);
            }
            Err(_) => return Err(Refusal::Unreachable),
        };
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_headers(256)
            .max_buf_size(256 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| Refusal::Unreachable)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the host of a credential broke");
            }
        }));
        Ok(Upstream { sender, _connection: connection })
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
        let request = match self.rebuild(request) {
            Ok(request) => request,
            Err(why) => {
                self.proxy.record(&self.passed.head, Err(Refusal::Malformed));
                return Ok(self.refusal(Refusal::Malformed, why));
            }
        };
        let mut place = self.upstream.lock().await;
        // A host may close a connection that it had kept; then there is a new one.
        let mut upstream = place.take();
        if let Some(kept) = &mut upstream
            && kept.sender.ready().await.is_err()
        {
            upstream = None;
        }
        let mut upstream = match upstream {
            Some(upstream) => upstream,
            None => match self.open().await {
                Ok(upstream) => upstream,
                Err(reason) => {
                    self.proxy.record(&self.passed.head, Err(reason));
                    return Ok(self.refusal(reason, ""));
                }
            },
        };
        match upstream.sender.send_request(request).await {
            Ok(response) if !response.status().is_informational() => {
                *place = Some(upstream);
                Ok(self.returned(response))
            }
            Ok(_) => Ok(self.refusal(Refusal::Unreachable, "")),
            Err(error) => {
                tracing::debug!(%error, "no answer from the host of a credential");
                Ok(self.refusal(Refusal::Unreachable, ""))
            }
        }
    }

    /// The request as it goes on, with the credentials, or why it does not.
    fn rebuild(
        &self,
        request: Request<Incoming>,
    ) -> Result<Request<BoxBody<Bytes, hyper::Error>>, &'static str> {
        let (parts, body) = request.into_parts();
        let uri = &parts.uri;
        if uri.scheme().is_some() || uri.authority().is_some() || !uri.path().starts_with('/') {
            return Err("its target is not a path");
        }
        if !head::METHODS.contains(&parts.method.as_str()) || parts.version > Version::HTTP_11 {
            return Err("its method or version does not pass");
        }
        if parts.headers.contains_key(header::UPGRADE) {
            return Err("upgrades do not pass");
        }
        let name = self.passed.head.name.as_str();
        let mut hosts = parts.headers.get_all(header::HOST).iter();
        let (host, second) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next());
        let host = host.map(|host| host.strip_suffix(":443").unwrap_or(host));
        if second.is_some() || !host.is_some_and(|host| host.eq_ignore_ascii_case(name)) {
            return Err("its Host header does not name the host of its connection");
        }
        let mut headers = headers::end_to_end(&parts.headers);
        for ours in [
            header::HOST,
            header::CONTENT_LENGTH,
            header::ACCEPT_ENCODING,
            // The secret could be fetched in two halves. The second is an old name of the first.
            header::RANGE,
            HeaderName::from_static("request-range"),
            header::IF_RANGE,
        ] {
            headers.remove(ours);
        }
        let host = HeaderValue::from_str(name).map_err(|_| "its host is no header")?;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for credential in &self.host.credentials {
            let (name, value) = credential.header();
            headers.insert(name, value);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut rebuilt = Request::new(body.boxed());
        *rebuilt.uri_mut() = path.parse::<Uri>().map_err(|_| "its target is not a path")?;
        *rebuilt.method_mut() = parts.method;
        *rebuilt.headers_mut() = headers;
        Ok(rebuilt)
    }

    /// The answer as it goes back, without the secrets.
    fn returned(&self, response: Response<Incoming>) -> Answer {
        let (parts, body) = response.into_parts();
        let redactors: Vec<_> = self.host.credentials.iter().map(Credential::redactor).collect();
        let mut headers = HeaderMap::new();
        for (name, value) in &headers::end_to_end(&parts.headers) {
            // Taking a secret out changes the length.
            if name != header::CONTENT_LENGTH {
                let fresh = self.host.credentials.iter().map(Credential::redactor).collect();
                headers.append(name, redacted(value, fresh));
            }
        }
        let mut returned = Response::new(Redacted { inner: body, redactors }.boxed_unsync());
        *returned.status_mut() = parts.status;
        *returned.headers_mut() = headers;
        returned
    }

    fn refusal(&self, reason: Refusal, why: &'static str) -> Answer {
        let head = &self.passed.head;
        let refused = Refused { reason, target: head.name.as_str(), port: head.port, why };
        let body = Full::new(Bytes::from(refused.text())).map_err(|never| match never {});
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() =
            StatusCode::from_u16(refused.status()).unwrap_or(StatusCode::FORBIDDEN);
        let word = HeaderValue::from_static(reason.as_str());
        response.headers_mut().insert("x-sandbox-refused", word);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// The end of what redactors hold back.
fn rest(redactors: &mut [Redactor]) -> Bytes {
    redactors.iter_mut().fold(Bytes::new(), |rest, redactor| {
        let passed = redactor.pass(rest);
        [passed, redactor.rest()].concat().into()
    })
}

fn redacted(value: &HeaderValue, mut redactors: Vec<Redactor>) -> HeaderValue {
    let whole = Bytes::copy_from_slice(value.as_bytes());
    let front = redactors.iter_mut().fold(whole, |bytes, redactor| redactor.pass(bytes));
    let clean = [front, rest(&mut redactors)].concat();
    HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A body that loses the secrets on its way. Trailers do not pass.
struct Redacted {
    inner: Incoming,
    redactors: Vec<Redactor>,
}

impl http_body::Body for Redacted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        loop {
            let piece = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let redactors = self.redactors.iter_mut();
                        redactors.fold(data, |bytes, redactor| redactor.pass(bytes))
                    }
                    Err(_) => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = rest(&mut self.redactors);
                    // Nothing is held any more when we are asked again.
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
    }
}
