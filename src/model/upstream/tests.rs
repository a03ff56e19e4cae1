//! Answers that come otherwise than asked, and servers whose certificate nobody else knows.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::model::testing::Server;

async fn ask(url: &str, ca_bundle: Option<std::path::PathBuf>) -> Result<Response, Fault> {
    let source = crate::config::Source::OpenaiCompatible;
    let base_url = format!("{url}/v1");
    let endpoint = Endpoint { source, base_url, ca_bundle, ..Endpoint::rehearsal() };
    let upstream = Upstream::new(&endpoint).expect("an upstream");
    upstream.post("/chat/completions", Bytes::from_static(b"{}")).await
}

/// A head for an answer that is compressed.
fn head(encoding: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: {encoding}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
}

#[tokio::test]
async fn what_comes_compressed_is_decoded_piece_by_piece() {
    let (go, wait) = tokio::sync::watch::channel(0);
    let server = Server::start(move |_, seen, mut line| {
        let mut wait = wait.clone();
        async move {
            assert_eq!(seen.header("accept-encoding"), Some("identity"));
            line.raw(head("gzip")).await;
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            for piece in 1..=3 {
                // Each only when the one before it has been read.
                wait.wait_for(|seen| *seen + 1 >= piece).await.expect("a reader");
                encoder.write_all(format!("data: {piece}\n\n").as_bytes()).expect("memory");
                encoder.flush().expect("memory");
                line.chunk(&std::mem::take(encoder.get_mut())).await;
            }
            line.chunk(&encoder.finish().expect("memory")).await;
            line.end_stream().await;
        }
    })
    .await;
    let mut response = ask(&server.url(), None).await.expect("an answer");
    assert_eq!(response.content_type, "text/event-stream");
    for piece in 1..=3 {
        let chunk = response.body.next().await.expect("a piece").expect("no fault");
        assert_eq!(chunk, format!("data: {piece}\n\n").as_bytes());
        go.send(piece).expect("a server");
    }
    assert!(response.body.next().await.is_none());
}

#[tokio::test]
async fn a_bomb_is_let_go_at_the_limit_and_what_nobody_decodes_is_named() {
    // 64 MiB in some 64 KiB.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let block = vec![b' '; 1 << 20];
    (0..64).for_each(|_| encoder.write_all(&block).expect("memory"));
    let bomb: Arc<[u8]> = encoder.finish().expect("memory").into();
    let server = Server::start(move |number, _, mut line| {
        let bomb = bomb.clone();
        async move {
            line.raw(head(if number == 0 { "deflate" } else { "br" })).await;
            line.chunk(&bomb).await;
            line.end_stream().await;
        }
    })
    .await;
    let mut response = ask(&server.url(), None).await.expect("an answer");
    let piece = response.body.next().await.expect("a piece").expect("no fault");
    assert!(piece.len() <= 64 << 10, "{} bytes at once", piece.len());
    let fault = response.read_all(1 << 20).await.expect_err("too long");
    assert!(fault.message.contains("longer than"), "{fault}");
    let mut response = ask(&server.url(), None).await.expect("an answer");
    let fault = response.read_all(1 << 20).await.expect_err("unreadable");
    assert_eq!(fault.kind, FaultKind::NotJson);
    assert!(fault.message.contains("(br)"), "{fault}");
}

#[tokio::test]
async fn a_private_authority_is_believed_where_it_is_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &authority).expect("signed");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not believe us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
            let _ = stream.shutdown().await;
        }
    });
    let url = format!("https://localhost:{port}");
    let fault = ask(&url, None).await.expect_err("nobody knows it");
    assert_eq!(fault.kind, FaultKind::Tls);
    assert!(fault.hint.is_some_and(|hint| hint.contains("model.ca_bundle")));
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = folder.path().join("ca.pem");
    std::fs::write(&bundle, authority.pem()).expect("written");
    let mut response = ask(&url, Some(bundle.clone())).await.expect("believed");
    assert_eq!(response.read_all(10).await.expect("an answer"), "{}");
    serving.abort();

    for (content, why) in [(Some("no certificate"), "no certificate"), (None, "No such file")] {
        match content {
            Some(text) => std::fs::write(&bundle, text).expect("written"),
            None => std::fs::remove_file(&bundle).expect("removed"),
        }
        let endpoint = Endpoint {
            base_url: url.clone(),
            ca_bundle: Some(bundle.clone()),
            ..Endpoint::rehearsal()
        };
        let endpoint = Endpoint { source: crate::config::Source::Vllm, ..endpoint };
        let error = Upstream::new(&endpoint).expect_err("no bundle").to_string();
        assert!(error.contains(why) && error.contains("model.ca_bundle"), "{error}");
    }
}
