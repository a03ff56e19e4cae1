//! A sandbox that tries to break the proxy, and servers that do.

use std::time::Instant;

use super::*;
use crate::model::testing::Server;

fn world() -> World {
    World { names: [("example.com", vec![PUBLIC])].into(), ..World::default() }
}

#[tokio::test]
async fn a_second_request_on_a_connection_reaches_nobody() {
    let (listener, port) = public().await;
    let server =
        Server::start_on(listener, |_, _, mut line| async move { line.reply(200, "", "ok").await });
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let host = format!("example.com:{port}");
    let inner = format!("GET http://{host}/inner HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for request in [
        format!("GET http://{host}/outer HTTP/1.1\r\nHost: {host}\r\n\r\n{inner}"),
        format!(
            "POST http://{host}/outer HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}{inner}"
        ),
        format!(
            "POST http://{host}/outer HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{inner}"
        ),
        format!(
            "POST http://{host}/outer HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n2;x\n{{}}\r\n0\r\nHost: evil\r\n\r\n{inner}"
        ),
        format!(
            "POST http://{host}/outer HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{inner}"
        ),
    ] {
        let answer = bench.raw(request).await;
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{answer}");
    }
    let seen = server.seen();
    assert!(seen.len() >= 3, "{seen:?}");
    for seen in seen {
        assert!(seen.path() == "/outer" && !seen.head.contains("evil"), "{seen:?}");
        assert!(!String::from_utf8_lossy(&seen.body).contains("inner"), "{seen:?}");
    }
}

#[tokio::test]
async fn heads_that_are_long_slow_or_no_http_are_cut_off() {
    let mut bench = Bench::open(allow(&["example.com"], &[]));
    let long = format!("GET http://example.com/{} HTTP/1.1\r\n\r\n", "b".repeat(1 << 20));
    assert_eq!(status(&bench.raw(long).await), "400");
    let many = format!(
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n{}\r\n",
        "a: b\r\n".repeat(100)
    );
    assert_eq!(status(&bench.raw(many).await), "400");
    assert_eq!(status(&bench.raw("\u{16}\u{3}\u{1}\r\n\r\n").await), "400");
    for attempt in bench.attempts() {
        assert_eq!(attempt.outcome, Outcome::Refused { reason: Refusal::Malformed });
    }
    // Slow loris: a header every now and then.
    let started = Instant::now();
    let mut stream = bench.dial().await;
    stream.write_all(b"CONNECT example.com:443 HTTP/1.1\r\n").await.expect("taken");
    let mut rest = Vec::new();
    loop {
        let read = timeout(Duration::from_millis(50), stream.read_to_end(&mut rest)).await;
        if read.is_ok() || stream.write_all(b"a: b\r\n").await.is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "the loris lives");
    }
    assert!(started.elapsed() >= bounds().head_time);
    assert_eq!(bench.attempt(), ("example.com".into(), 443, Err(Refusal::TooSlow)));
    assert!(bench.world.asked.lock().expect("a log").is_empty());
}

#[tokio::test]
async fn a_client_that_speaks_something_else_is_told_so_at_once() {
    let mut bench = Bench::open(allow(&["example.com"], &[]));
    let hello = real("example.com");
    for greeting in [&b"\x05\x01\x00"[..], b"\x04\x01\x00\x50\x08\x08\x08\x08\0", &hello, b"\r\n"] {
        let started = Instant::now();
        let mut stream = bench.dial().await;
        stream.write_all(greeting).await.expect("taken");
        let mut answer = [0; 12];
        within(stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 400");
        assert!(started.elapsed() < bounds().head_time, "{greeting:?}");
        assert_eq!(bench.attempt().2, Err(Refusal::Malformed), "{greeting:?}");
    }
    assert!(bench.world.asked.lock().expect("a log").is_empty());
}

#[tokio::test]
async fn a_flood_of_connections_waits_and_then_all_is_well() {
    let bounds = Bounds { clients: 8, ..bounds() };
    let bench = Bench::with(Egress::default(), bounds, world());
    let mut idle = Vec::new();
    for _ in 0..1000 {
        let connecting = UnixStream::connect(bench.gateway.folder().join("egress.sock"));
        match timeout(Duration::from_millis(20), connecting).await {
            Ok(Ok(stream)) => idle.push(stream),
            _ => break,
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").expect("proc").count();
    assert!(idle.len() > 8 && open < idle.len() + 150, "{} connected, {open} open", idle.len());
    drop(idle);
    let answer = bench.raw("GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    assert_eq!(status(&answer), "403");
}

#[tokio::test]
async fn more_tunnels_than_may_be_are_refused_until_one_ends() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let bounds = Bounds { tunnels: 2, ..bounds() };
    let mut bench = Bench::with(allow(&["example.com"], &[port]), bounds, world());
    let host = format!("example.com:{port}");
    let mut open = Vec::new();
    for _ in 0..2 {
        let (mut stream, _) = bench.connect(&host).await;
        stream.write_all(&real("example.com")).await.expect("sent");
        within(stream.read_u8()).await.expect("connected");
        open.push(stream);
    }
    let (_, answer) = bench.connect(&host).await;
    assert_eq!((status(&answer), reason(&answer)), ("503", "too_many"));
    open.clear();
    let again = async {
        while status(&bench.connect(&host).await.1) != "200" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(again).await;
    assert_eq!(bench.attempts().iter().filter(|a| a.outcome == Outcome::Allowed).count(), 2);
}

#[tokio::test]
async fn the_bytes_of_a_run_end_and_are_told() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let bounds = Bounds { bytes: 100_000, ..bounds() };
    let mut bench = Bench::with(allow(&["example.com"], &[port]), bounds, world());
    let host = format!("example.com:{port}");
    let (mut stream, _) = bench.connect(&host).await;
    stream.write_all(&real("example.com")).await.expect("sent");
    let (mut reader, mut writer) = stream.split();
    let writing = async { while writer.write_all(&[7; 10_000]).await.is_ok() {} };
    let mut back = Vec::new();
    let reading = async { within(reader.read_to_end(&mut back)).await.map_or(0, |_| 1) };
    tokio::join!(writing, reading);
    assert!(back.len() < 100_000, "{} came back", back.len());
    let outcomes: Vec<_> = bench.attempts().into_iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Allowed, Outcome::Refused { reason: Refusal::Bytes }]);
    let (_, answer) = bench.connect(&host).await;
    assert_eq!((status(&answer), reason(&answer)), ("403", "bytes"));
}

#[tokio::test]
async fn what_is_idle_is_closed_even_when_the_sandbox_reads_nothing() {
    let (listener, port) = public().await;
    let server = tokio::spawn(async move {
        // Sends until nobody takes more, and then notices that the connection is gone.
        let (mut stream, _) = listener.accept().await.expect("a client");
        while stream.write_all(&[7; 10_000]).await.is_ok() {}
    });
    let bounds = Bounds { idle_time: Duration::from_millis(500), ..bounds() };
    let bench = Bench::with(allow(&["example.com"], &[port]), bounds, world());
    let (mut stream, _) = bench.connect(&format!("example.com:{port}")).await;
    stream.write_all(&real("example.com")).await.expect("sent");
    within(server).await.expect("it ended");
}

#[tokio::test]
async fn servers_that_speak_no_http_or_change_the_protocol_are_bad_gateways() {
    let (listener, port) = public().await;
    let _server = Server::start_on(listener, |number, _, mut line| async move {
        let answer = match number {
            0 => "SSH-2.0-x\r\n".to_owned(),
            1 => "HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
            2 => format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(5000)),
            3 => format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20)),
            4 => {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned()
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut".to_owned(),
        };
        line.raw(answer).await;
    });
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let host = format!("example.com:{port}");
    let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for number in 0..5 {
        let answer = bench.raw(&request).await;
        assert_eq!((status(&answer), reason(&answer)), ("502", "unreachable"), "{number} {answer}");
    }
    let cut = bench.raw(&request).await;
    assert!(cut.contains("content-length: 50") && cut.ends_with("cut"), "{cut}");
}

#[tokio::test]
async fn closing_ends_tunnels_at_once() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let (mut stream, _) = bench.connect(&format!("example.com:{port}")).await;
    stream.write_all(&real("example.com")).await.expect("sent");
    within(stream.read_u8()).await.expect("connected");
    within(bench.gateway.close()).await.expect("closed");
    read_all(&mut stream).await;
}
