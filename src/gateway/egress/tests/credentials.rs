//! A secret that is lent: its host sees it, the sandbox never does, and nobody else gets it.

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::gateway::Credential;
use crate::gateway::egress::answer::TLS_DENIED;
use crate::gateway::egress::authority::Authority;

const SECRET: &str = "ghp_very-secret-value-42";

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

/// HTTPS servers of an internet whose only authority is `authority`.
struct Secure {
    port: u16,
    seen: Seen,
    trust: Arc<ClientConfig>,
    _task: AbortOnDropHandle<()>,
}

fn trusting(pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate"))
        .expect("good");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// Says back every secret that it is told, in all ways that are to be caught.
async fn answer(
    seen: Seen,
    request: Request<Incoming>,
) -> Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let path = parts.uri.to_string();
    let told =
        parts.headers.get("authorization").map(|value| value.to_str().expect("text").to_owned());
    let told = told.unwrap_or_default();
    let close = path == "/close";
    seen.lock().expect("a log").push((path, parts.headers, body));
    let said = format!("you said {told}, that is {}.", told.replace("token ", ""));
    let pieces: Vec<_> = said.as_bytes().chunks(5).map(Bytes::copy_from_slice).collect();
    let pieces = futures_util::stream::iter(pieces).map(|piece| Ok(Frame::data(piece)));
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert("x-echo", format!("<{told}>").parse().expect("a header"));
    if close {
        headers.insert("connection", "close".parse().expect("a header"));
    }
    response
}

impl Secure {
    /// Serves with certificates for `certified`, whoever is asked for.
    async fn start(certified: &str) -> Self {
        let authority = Authority::new([name(certified)].iter()).expect("an authority");
        let acceptor = TlsAcceptor::from(authority.server(&name(certified)).expect("a server"));
        let (listener, port) = public().await;
        let seen = Seen::default();
        let log = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), log.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| {
                        let log = log.clone();
                        async move { Ok::<_, std::convert::Infallible>(answer(log, request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let trust = trusting(&authority.pem());
        Self { port, seen, trust, _task: AbortOnDropHandle::new(task) }
    }

    fn seen(&self) -> Vec<(String, HeaderMap, Bytes)> {
        self.seen.lock().expect("a log").clone()
    }

    /// A sandbox with a credential for `example.com`, on the internet of this server.
    fn bench(&self, egress: Egress) -> Bench {
        let credential =
            Credential::new("example.com", "Authorization", &format!("token {SECRET}"));
        let credentials = vec![credential.expect("a credential")];
        let names = ["example.com", "other.com"].map(|name| (name, vec![PUBLIC]));
        let mut names = HashMap::from(names);
        names.insert("rebound.com", vec!["10.0.0.1".parse().expect("an address")]);
        let world = World {
            names,
            secure: Some(self.port),
            trust: Some(self.trust.clone()),
            ..World::default()
        };
        Bench::with(Egress { credentials, ..egress }, bounds(), world)
    }
}

impl Bench {
    fn authority(&self) -> String {
        let path = self.gateway.authority().expect("an authority");
        std::fs::read_to_string(path).expect("a certificate")
    }

    /// TLS through the proxy, with whoever `trust` trusts.
    async fn secure(
        &self,
        host: &str,
        port: u16,
        trust: Arc<ClientConfig>,
    ) -> io::Result<TlsStream<UnixStream>> {
        let (stream, answer) = self.connect(&format!("{host}:{port}")).await;
        assert_eq!(status(&answer), "200", "{answer}");
        let host = host.to_owned().try_into().expect("a name");
        within(TlsConnector::from(trust).connect(host, stream)).await
    }

    /// What the sandbox gets for `request` to the credential's host.
    async fn ask(&self, request: &str) -> String {
        let trust = trusting(&self.authority());
        let mut stream = self.secure("example.com", 443, trust).await.expect("TLS");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let _ = within(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn the_host_sees_the_secret_and_the_sandbox_does_not() {
    let server = Secure::start("example.com").await;
    let mut bench = server.bench(Egress::default());
    let answer = bench
        .ask(
            "POST /a?b=c HTTP/1.1\r\nHost: EXAMPLE.com:443\r\nAuthorization: token placeholder\r\n\
             authorization: token second\r\nAccept-Encoding: gzip\r\nRange: bytes=0-10\r\nRequest-Range: bytes=0-10\r\n\
             Proxy-Authorization: Basic x\r\nConnection: close, authorization\r\nX-Kept: yes\r\n\
             Content-Length: 4\r\n\r\nbody",
        )
        .await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(!answer.contains(SECRET) && !answer.contains("very-secret"), "{answer}");
    assert!(answer.contains("x-echo: <token [api key]>"), "{answer}");
    // The body comes in chunks; without their heads it is a text.
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let body: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(body, "you said token [api key], that is [api key].");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    let (path, headers, body) = &seen[0];
    assert_eq!((path.as_str(), &body[..]), ("/a?b=c", &b"body"[..]));
    let told: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(told, [&format!("token {SECRET}")]);
    assert_eq!(
        (&headers["host"], &headers["x-kept"]),
        (&"example.com".parse().expect("a header"), &"yes".parse().expect("a header"))
    );
    assert_eq!(headers["accept-encoding"], "identity");
    assert!(
        !headers.contains_key("range")
            && !headers.contains_key("request-range")
            && !headers.contains_key("proxy-authorization")
    );
    assert_eq!(bench.attempt(), ("example.com".into(), 443, Ok(())));
    let record = bench.gateway.record();
    assert!(record.egress.bytes_sent > 0 && record.egress.bytes_received > 0);
    assert!(!format!("{record:?} {:?}", bench.gateway).contains("very-secret"));
}

#[tokio::test]
async fn a_connection_takes_several_requests_even_when_the_host_closes_its_own() {
    let server = Secure::start("example.com").await;
    let bench = server.bench(Egress::default());
    let trust = trusting(&bench.authority());
    let mut stream = bench.secure("example.com", 443, trust).await.expect("TLS");
    for path in ["/one", "/close", "/three", "/four"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n0\r\n\r\n") {
            answer.push(within(stream.read_u8()).await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}");
    }
    let seen: Vec<_> = server
        .seen()
        .into_iter()
        .map(|(path, headers, _)| {
            assert_eq!(headers["authorization"], format!("token {SECRET}"));
            path
        })
        .collect();
    assert_eq!(seen, ["/one", "/close", "/three", "/four"]);
    assert_eq!(bench.dialled().len(), 2, "a new connection only where one was closed");
    let asked = bench.world.asked.lock().expect("a log");
    assert_eq!(*asked, ["example.com"], "and no second lookup");
}

#[tokio::test]
async fn a_request_for_another_host_does_not_get_it() {
    let server = Secure::start("example.com").await;
    let mut bench = server.bench(Egress { open: true, ..Egress::default() });
    let inner = "GET /inner HTTP/1.1\r\nHost: other.com\r\n\r\n";
    for request in [
        "GET / HTTP/1.1\r\nHost: other.com\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: example.com\r\nHost: other.com\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: example.com.other.com\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: example.com:8443\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET https://other.com/ HTTP/1.1\r\nHost: other.com\r\n\r\n".to_owned(),
        "GET https://other.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(),
        "CONNECT other.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(),
        "TRACE / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
            .to_owned(),
    ] {
        let answer = bench.ask(&request).await;
        assert_eq!(status(&answer), "400", "{request}{answer}");
        let outcomes: Vec<_> =
            bench.attempts().into_iter().map(|attempt| attempt.outcome).collect();
        assert_eq!(outcomes, [Outcome::Allowed, Outcome::Refused { reason: Refusal::Malformed }]);
    }
    assert!(server.seen().is_empty());
    // What is smuggled behind a body is a request of its own, and refused as such.
    for framing in [
        "Content-Length: 2\r\n\r\n{}".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_owned(),
    ] {
        bench.ask(&format!("POST /outer HTTP/1.1\r\nHost: example.com\r\n{framing}{inner}")).await;
    }
    for (path, headers, body) in server.seen() {
        assert_eq!((path.as_str(), &body[..]), ("/outer", &b"{}"[..]));
        assert_eq!(headers["host"], "example.com");
    }
    assert!(server.seen().len() >= 2);
}

#[tokio::test]
async fn other_hosts_ports_and_plain_http_never_get_it() {
    let server = Secure::start("other.com").await;
    let bench = server.bench(allow(&["other.com", "example.com"], &[server.port]));
    let get = "GET / HTTP/1.1\r\nHost: other.com\r\nConnection: close\r\n\r\n";
    // To another host TLS goes through unopened: it is the host's own certificate that is seen.
    let ours = trusting(&bench.authority());
    bench.secure("other.com", 443, ours).await.expect_err("not certified by us");
    let mut stream = bench.secure("other.com", 443, server.trust.clone()).await.expect("TLS");
    stream.write_all(get.as_bytes()).await.expect("sent");
    stream.read_to_end(&mut Vec::new()).await.expect("answered");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].1.contains_key("authorization"), "{seen:?}");
    // So does TLS to another port of the credential's host.
    let own = Secure::start("example.com").await;
    let bench = own.bench(allow(&["example.com"], &[own.port]));
    let trust = own.trust.clone();
    let mut stream = bench.secure("example.com", own.port, trust).await.expect("unopened");
    stream.write_all(get.as_bytes()).await.expect("sent");
    stream.read_to_end(&mut Vec::new()).await.expect("answered");
    assert_eq!(own.seen().len(), 1);
    assert!(!own.seen()[0].1.contains_key("authorization"), "{:?}", own.seen());
    // Plain HTTP to it passes as it is, where the host is allowed.
    let (listener, port) = public().await;
    let plain = crate::model::testing::Server::start_on(listener, |_, _, mut line| async move {
        line.reply(200, "", "").await;
    });
    let bench = server.bench(allow(&["example.com"], &[port]));
    let host = format!("example.com:{port}");
    bench.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    assert_eq!(plain.seen().len(), 1);
    assert!(
        !plain.seen()[0].head.contains("secret")
            && plain.seen()[0].header("authorization").is_none()
    );
    // A credential alone opens 443 and nothing else.
    let mut bench = server.bench(Egress { ports: vec![port], ..Egress::default() });
    bench.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    assert_eq!(bench.attempt().2, Err(Refusal::NotAllowed));
    bench.connect(&host).await;
    assert_eq!(bench.attempt().2, Err(Refusal::NotAllowed));
    bench.connect("a.example.com:443").await;
    assert_eq!(bench.attempt().2, Err(Refusal::NotAllowed));
    assert_eq!(plain.seen().len(), 1);
}

#[tokio::test]
async fn a_host_that_cannot_prove_itself_is_told_nothing() {
    // Certified for another name, and certified by nobody that is trusted.
    let wrong = Secure::start("other.com").await;
    let good = Secure::start("example.com").await;
    let stranger = Secure { trust: wrong.trust.clone(), ..good };
    for server in [&wrong, &stranger] {
        let mut bench = server.bench(Egress::default());
        let (mut stream, _) = bench.connect("example.com:443").await;
        stream.write_all(&real("example.com")).await.expect("sent");
        let mut said = Vec::new();
        let _ = within(stream.read_to_end(&mut said)).await;
        assert_eq!(said, TLS_DENIED);
        assert_eq!(bench.attempt(), ("example.com".into(), 443, Err(Refusal::UpstreamTls)));
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn its_host_is_judged_like_any_other() {
    let server = Secure::start("example.com").await;
    let mut bench = server.bench(Egress::default());
    let (mut stream, _) = bench.connect("example.com:443").await;
    stream.write_all(&real("other.com")).await.expect("sent");
    read_all(&mut stream).await;
    assert_eq!(bench.attempt().2, Err(Refusal::SniMismatch));
    let credential = Credential::new("rebound.com", "x-key", SECRET).expect("a credential");
    let world = World {
        names: [("rebound.com", vec![PUBLIC, "10.0.0.1".parse().expect("an address")])].into(),
        trust: Some(server.trust.clone()),
        ..World::default()
    };
    let egress = Egress { credentials: vec![credential], ..Egress::default() };
    let mut bench = Bench::with(egress, bounds(), world);
    bench.connect("rebound.com:443").await;
    assert_eq!(bench.attempt().2, Err(Refusal::PrivateAddress));
    assert!(bench.dialled().is_empty());
}

#[tokio::test]
async fn the_authority_is_of_one_run_and_for_its_hosts_only() {
    use std::os::unix::fs::PermissionsExt;
    let server = Secure::start("example.com").await;
    let (one, two) = (server.bench(Egress::default()), server.bench(Egress::default()));
    assert_ne!(one.authority(), two.authority());
    one.secure("example.com", 443, trusting(&two.authority())).await.expect_err("another's");
    let path = one.gateway.authority().expect("an authority");
    assert_eq!(path.parent(), Some(one.gateway.folder()));
    assert_eq!(std::fs::metadata(path).expect("a file").permissions().mode() & 0o777, 0o400);
    assert!(one.authority().contains("BEGIN CERTIFICATE") && !one.authority().contains("KEY"));
    assert!(Bench::open(Egress::default()).gateway.authority().is_none());

    // Were its key to leak, it would certify nobody else: clients check the constraint.
    let authority = Authority::new([name("example.com")].iter()).expect("an authority");
    for (host, good) in [("example.com", true), ("other.com", false)] {
        let acceptor = TlsAcceptor::from(authority.server(&name(host)).expect("a server"));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let connector = TlsConnector::from(trusting(&authority.pem()));
        let server = tokio::spawn(async move { acceptor.accept(far).await.is_ok() });
        let connected = connector.connect(host.to_owned().try_into().expect("a name"), near).await;
        assert_eq!(connected.is_ok(), good, "{host}");
        drop(connected);
        let _ = server.await;
    }
}
