//! The internet's web servers, which keep every byte that they got.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// One connection, as the server saw it.
#[derive(Clone, Debug)]
pub struct Visit {
    pub to: SocketAddr,
    /// Of TLS that was completed.
    pub sni: Option<String>,
    /// All that was sent, inside of TLS where there is any.
    pub bytes: Vec<u8>,
    pub closed: bool,
}

/// One request, as an HTTP server understood it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub to: SocketAddr,
    pub tls: bool,
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Asked {
    /// All values of a header, with commas between.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect::<Vec<_>>().join(", ")
    }

    pub fn host(&self) -> String {
        self.header("host")
    }
}

/// What all servers know and keep.
#[derive(Default)]
pub struct Sites {
    pub files: Mutex<BTreeMap<String, Bytes>>,
    visits: Mutex<Vec<Visit>>,
    asked: Mutex<Vec<Asked>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of `/big`.
pub const BIG: usize = 50 << 20;

impl Sites {
    pub fn visits(&self) -> Vec<Visit> {
        lock(&self.visits).clone()
    }

    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    pub fn publish(&self, path: &str, content: impl Into<Bytes>) {
        lock(&self.files).insert(path.to_owned(), content.into());
    }

    /// Serves until dropped.
    pub fn serve(
        self: &Arc<Self>,
        listener: std::net::TcpListener,
        tls: Option<Arc<ServerConfig>>,
    ) -> AbortOnDropHandle<()> {
        let to = listener.local_addr().expect("its address");
        let listener = TcpListener::from_std(listener).expect("a socket for tokio");
        let sites = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let at = {
                    let mut visits = lock(&sites.visits);
                    visits.push(Visit { to, sni: None, bytes: Vec::new(), closed: false });
                    visits.len() - 1
                };
                let visitor = Visitor { sites: sites.clone(), at, to, tls: tls.is_some() };
                let acceptor = tls.clone().map(TlsAcceptor::from);
                connections.spawn(async move {
                    match acceptor {
                        None => visitor.serve(stream).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            let name = stream.get_ref().1.server_name().map(str::to_owned);
                            lock(&visitor.sites.visits)[at].sni = name;
                            visitor.serve(stream).await;
                        }
                    }
                });
            }
        }))
    }
}

struct Visitor {
    sites: Arc<Sites>,
    at: usize,
    to: SocketAddr,
    tls: bool,
}

impl Drop for Visitor {
    fn drop(&mut self) {
        lock(&self.sites.visits)[self.at].closed = true;
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Visitor {
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let stream = Tap { inner: stream, sites: self.sites.clone(), at: self.at };
        let service = service_fn(|request| self.answer(request));
        let http = hyper::server::conn::http1::Builder::new();
        http.serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let (parts, body) = request.into_parts();
        let body =
            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let asked = Asked {
            to: self.to,
            tls: self.tls,
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: parts.headers,
            body,
        };
        lock(&self.sites.asked).push(asked.clone());
        let file = lock(&self.sites.files).get(&path.replace("/./", "/")).cloned();
        Ok(match path.as_str() {
            "/" => full(200, format!("hello from {}\n", asked.host())),
            "/echo" => echo(&asked),
            "/away" => away("http://inner-10.example.org/"),
            "/elsewhere" => away("https://other.example.net/echo"),
            "/big" => stream(BIG, 1 << 20, Duration::ZERO),
            // A byte now and then, for ten minutes.
            "/drip" => stream(2400, 1, Duration::from_millis(250)),
            "/hang" => std::future::pending().await,
            _ => match file {
                Some(content) => {
                    let mut response = full(200, content);
                    let kind =
                        if path.ends_with('/') { "text/html" } else { "application/octet-stream" };
                    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
                    response
                }
                None => full(404, "no such file\n"),
            },
        })
    }
}

fn full(status: u16, content: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(content.into()).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// Shows the client all that it sent, in the body and in a header.
fn echo(asked: &Asked) -> Answer {
    let lines = asked.headers.iter().map(|(name, value)| {
        format!("echo {name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
    });
    let mut response = full(200, lines.collect::<String>());
    let told = HeaderValue::from_str(&asked.header("authorization")).expect("a header");
    response.headers_mut().insert("x-echo", told);
    response
}

fn away(to: &'static str) -> Answer {
    let mut response = full(302, "");
    response.headers_mut().insert("location", HeaderValue::from_static(to));
    response
}

fn stream(total: usize, piece: usize, pause: Duration) -> Answer {
    let pieces = futures_util::stream::unfold(0, move |sent| async move {
        if sent >= total {
            return None;
        }
        tokio::time::sleep(pause).await;
        let size = piece.min(total - sent);
        Some((Ok(Frame::data(Bytes::from(vec![b'x'; size]))), sent + size))
    });
    Response::new(StreamBody::new(pieces).boxed_unsync())
}

/// Keeps what is read.
struct Tap<S> {
    inner: S,
    sites: Arc<Sites>,
    at: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        lock(&self.sites.visits)[self.at].bytes.extend_from_slice(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
