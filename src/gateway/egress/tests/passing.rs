//! What may pass does, unchanged, and is counted.

use super::*;
use crate::gateway::Kind;
use crate::model::testing::Server;

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_is_told_before_it_ends() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let mut bench = Bench::open(allow(&[".example.com"], &[port]));
    let (mut stream, answer) = bench.connect(&format!("a.example.com:{port}")).await;
    assert_eq!(status(&answer), "200");
    let mut sent = real("A.example.COM");
    stream.write_all(&sent).await.expect("sent");
    let more: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    sent.extend_from_slice(&more);
    let (mut reader, mut writer) = stream.split();
    let mut back = vec![0; sent.len()];
    let both = async {
        let (sent, read) = tokio::join!(writer.write_all(&more), reader.read_exact(&mut back));
        sent.expect("sent");
        read.expect("read");
    };
    within(both).await;
    assert_eq!(back, sent, "the hello as well");
    assert_eq!(bench.attempt(), ("a.example.com".into(), port, Ok(())));
    drop(stream);
    let record = bench.gateway.close().await.expect("closed").egress;
    assert_eq!((record.allowed, record.refused), (1, 0));
    assert_eq!((record.bytes_sent, record.bytes_received), (sent.len() as u64, sent.len() as u64));
    let target = &record.targets[0];
    assert_eq!((target.host.as_str(), target.port, target.allowed), ("a.example.com", port, 1));
}

#[tokio::test]
async fn what_came_behind_the_head_belongs_to_the_tunnel_and_a_hello_may_come_in_crumbs() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let hello = real("example.com");
    let mut early = format!("CONNECT example.com:{port} HTTP/1.0\r\n\r\n").into_bytes();
    early.extend_from_slice(&hello[..100]);
    let mut stream = bench.dial().await;
    stream.write_all(&early).await.expect("sent");
    for piece in hello[100..].chunks(40) {
        stream.write_all(piece).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let mut back = vec![0; "HTTP/1.1 200 Connection established\r\n\r\n".len() + hello.len()];
    within(stream.read_exact(&mut back)).await.expect("all");
    assert!(back.ends_with(&hello));
    // The same in records of seven bytes.
    let cut = records(&hello[5..], 7);
    let (mut stream, _) = bench.connect(&format!("example.com:{port}")).await;
    stream.write_all(&cut).await.expect("sent");
    let mut back = vec![0; cut.len()];
    within(stream.read_exact(&mut back)).await.expect("all");
    assert_eq!(back, cut);
}

#[tokio::test]
async fn an_end_of_sending_is_passed_on_and_the_rest_still_comes() {
    let (listener, port) = public().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("read");
        stream.write_all(b"the rest").await.expect("written");
        all.len()
    });
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let (mut stream, _) = bench.connect(&format!("example.com:{port}")).await;
    let hello = real("example.com");
    stream.write_all(&hello).await.expect("sent");
    stream.shutdown().await.expect("shut");
    assert_eq!(read_all(&mut stream).await, "the rest");
    assert_eq!(within(server).await.expect("a server"), hello.len());
}

#[tokio::test]
async fn plain_http_is_rebuilt_on_its_way_there_and_back() {
    let (listener, port) = public().await;
    let server = Server::start_on(listener, |_, _, mut line| async move {
        line.reply(
            201,
            "X-Kept: yes\r\nKeep-Alive: timeout=5\r\nX-Hop: no\r\nConnection: keep-alive, X-Hop\r\nProxy-Authenticate: Basic\r\n",
            "hello",
        )
        .await;
    });
    let mut bench = Bench::open(allow(&["example.com"], &[port]));
    let answer = bench
        .raw(format!(
            "POST http://example.com:{port}/a%20b?c=d HTTP/1.1\r\nhost: example.com:{port}\r\n\
             Content-Length: 4\r\nProxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Evil: x\r\nConnection: X-Mine, Host\r\nX-Mine: x\r\nTE: trailers\r\nX-Kept: yes\r\n\
             Authorization: Bearer its-own\r\n\r\nbody"
        ))
        .await;
    assert_eq!(status(&answer), "201", "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello") && answer.contains("x-kept: yes"), "{answer}");
    for gone in ["keep-alive", "x-hop", "proxy-"] {
        assert!(!answer.to_lowercase().contains(gone), "{gone} in {answer}");
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].line(), &seen[0].body[..]), ("POST /a%20b?c=d HTTP/1.1", &b"body"[..]));
    assert_eq!(seen[0].header("host"), Some(format!("example.com:{port}").as_str()));
    assert_eq!(seen[0].header("x-kept"), Some("yes"));
    assert_eq!(seen[0].header("authorization"), Some("Bearer its-own"));
    let head = seen[0].head.to_lowercase();
    for gone in ["proxy-", "x-mine", "te:", "connection"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert_eq!(bench.attempt(), ("example.com".into(), port, Ok(())));
}

#[tokio::test]
async fn plain_bodies_of_every_framing_pass() {
    let (listener, port) = public().await;
    let _server = Server::start_on(listener, |_, seen, mut line| async move {
        match seen.path() {
            "/chunked" => {
                line.begin_stream().await;
                line.chunk(b"one ").await;
                line.chunk(b"two").await;
                line.end_stream().await;
            }
            "/until-closed" => line.raw("HTTP/1.0 200 OK\r\n\r\nuntil closed").await,
            "/head" => line.raw("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await,
            _ => line.reply(404, "", "").await,
        }
    });
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let ask = async |method: &str, path: &str, version: &str| {
        let host = format!("example.com:{port}");
        bench.raw(format!("{method} http://{host}{path} {version}\r\nHost: {host}\r\n\r\n")).await
    };
    let chunked = ask("GET", "/chunked", "HTTP/1.1").await;
    assert!(chunked.contains("one ") && chunked.ends_with("0\r\n\r\n"), "{chunked}");
    let old = ask("GET", "/chunked", "HTTP/1.0").await;
    assert!(old.ends_with("\r\n\r\none two"), "{old}");
    assert!(ask("GET", "/until-closed", "HTTP/1.1").await.contains("until closed"));
    let head = ask("HEAD", "/head", "HTTP/1.1").await;
    assert!(head.contains("content-length: 1234") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(status(&ask("GET", "", "HTTP/1.1").await), "404");
}

#[tokio::test]
async fn an_open_proxy_passes_every_name_but_no_address() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let mut bench = Bench::open(Egress { open: true, ports: vec![port], ..Egress::default() });
    let (_, answer) = bench.connect(&format!("other.com:{port}")).await;
    assert_eq!(status(&answer), "200");
    let (_, answer) = bench.connect(&format!("{PUBLIC}:{port}")).await;
    assert_eq!((status(&answer), reason(&answer)), ("403", "ip_literal"));
    let (_, answer) = bench.connect("other.com:22").await;
    assert_eq!((status(&answer), reason(&answer)), ("403", "port"));
    let (_, answer) = bench.connect("unknown.com:443").await;
    assert_eq!((status(&answer), reason(&answer)), ("502", "unresolvable"));
    assert!(bench.attempts().iter().all(|attempt| attempt.kind == Kind::Connect));
    assert_eq!(*bench.world.asked.lock().expect("a log"), ["other.com", "unknown.com"]);
}
