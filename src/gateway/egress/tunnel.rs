//! `CONNECT`: bytes both ways, once the client has said in TLS itself which host it wants.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::hello::{self, Parsed};
use super::intercept::Interceptor;
use super::meter::Metered;
use super::proxy::{Passed, Proxy, answer_and_close};
use super::{Refusal, answer};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const BUFFER: usize = 64 * 1024;

pub async fn serve(
    proxy: &Proxy,
    interceptor: Option<&Interceptor>,
    mut stream: UnixStream,
    mut passed: Passed,
) {
    // What came behind the head belongs to the tunnel.
    let early = passed.bytes.split_off(passed.behind);
    if stream.write_all(ESTABLISHED).await.is_err() {
        proxy.record(&passed.head, Err(Refusal::NotTls));
        return;
    }
    let hello = match read_hello(proxy, &mut stream, early, passed.head.name.as_str()).await {
        Ok(hello) => hello,
        Err(reason) => return deny(proxy, stream, &passed, reason).await,
    };
    if let Some(interceptor) = interceptor
        && interceptor.answers_for(&passed.head)
    {
        return interceptor.serve(proxy, stream, &passed, hello).await;
    }
    let upstream = match proxy.connect(&passed).await {
        Ok(upstream) => upstream,
        Err(reason) => return deny(proxy, stream, &passed, reason).await,
    };
    proxy.record(&passed.head, Ok(()));
    let meter = proxy.meter();
    let mut upstream = Metered::new(upstream, meter.clone());
    let copying = async {
        upstream.write_all(&hello).await?;
        drop(hello);
        tokio::io::copy_bidirectional_with_sizes(&mut stream, &mut upstream, BUFFER, BUFFER).await
    };
    let copied = tokio::select! {
        copied = copying => copied,
        () = meter.idle(proxy.bounds.idle_time) => return tracing::debug!("an idle tunnel is closed"),
    };
    match copied {
        // Told, because to the agent it looks like a broken server.
        Err(error) if error.kind() == std::io::ErrorKind::QuotaExceeded => {
            proxy.record(&passed.head, Err(Refusal::Bytes));
        }
        Err(error) => tracing::debug!(%error, "a tunnel broke"),
        Ok(_) => {}
    }
}

async fn deny(proxy: &Proxy, mut stream: UnixStream, passed: &Passed, reason: Refusal) {
    proxy.record(&passed.head, Err(reason));
    // Who speaks no TLS would not understand it.
    let said = if reason == Refusal::NotTls { &[][..] } else { answer::TLS_DENIED };
    answer_and_close(&mut stream, said).await;
}

/// The bytes of a `ClientHello` for `name`, as they were sent.
async fn read_hello(
    proxy: &Proxy,
    stream: &mut UnixStream,
    early: Vec<u8>,
    name: &str,
) -> Result<Vec<u8>, Refusal> {
    let mut bytes = early;
    let reading = async {
        loop {
            match hello::parse(&bytes) {
                Parsed::Hello { sni: None } => return Err(Refusal::NoSni),
                Parsed::Hello { sni: Some(sni) } if sni.eq_ignore_ascii_case(name) => return Ok(()),
                Parsed::Hello { sni: Some(_) } => return Err(Refusal::SniMismatch),
                Parsed::Invalid(why) => {
                    tracing::debug!(why, "no ClientHello");
                    return Err(Refusal::NotTls);
                }
                Parsed::Incomplete if bytes.len() > hello::MAX => return Err(Refusal::NotTls),
                Parsed::Incomplete => {}
            }
            if !stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
                return Err(Refusal::NotTls);
            }
        }
    };
    timeout(proxy.bounds.hello_time, reading).await.unwrap_or(Err(Refusal::TooSlow))?;
    Ok(bytes)
}
