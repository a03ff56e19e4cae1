//! What must not pass does not, and both the agent and the record are told why.

use super::*;
use crate::model::testing::Server;

#[tokio::test]
async fn an_empty_list_denies_and_says_what_a_person_can_do() {
    let mut bench = Bench::open(Egress::default());
    for request in [
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
    ] {
        let answer = bench.raw(request).await;
        assert_eq!((status(&answer), reason(&answer)), ("403", "not_allowed"));
        assert!(answer.contains("[egress] allow = [\"example.com\"]"), "{answer}");
        assert!(answer.contains("Do not try to go around this."), "{answer}");
        let (target, _, outcome) = bench.attempt();
        assert_eq!((target.as_str(), outcome), ("example.com", Err(Refusal::NotAllowed)));
    }
    assert!(bench.world.asked.lock().expect("a log").is_empty(), "nobody is asked about the name");
    let record = serde_json::to_value(bench.gateway.record()).expect("plain");
    assert_eq!(record["egress"]["refused"], 2);
    assert_eq!(record["egress"]["targets"][0]["host"], "example.com");
    assert_eq!(record["egress"]["targets"][0]["last_refusal"], "not_allowed");
}

#[tokio::test]
async fn names_that_look_alike_are_strangers() {
    let mut bench = Bench::open(allow(&[".github.com"], &[]));
    for name in ["evilgithub.com", "github.com.evil.org", "github.co", "github.com-evil.org"] {
        let (_, answer) = bench.connect(&format!("{name}:443")).await;
        assert_eq!(reason(&answer), "not_allowed", "{name}");
        assert_eq!(bench.attempt(), (name.into(), 443, Err(Refusal::NotAllowed)));
    }
}

#[tokio::test]
async fn names_that_lead_home_are_refused_whole() {
    let addresses = [
        ("loop.example.com", vec!["127.0.0.1"], Refusal::PrivateAddress),
        ("lan.example.com", vec!["10.1.2.3"], Refusal::PrivateAddress),
        ("router.example.com", vec!["192.168.1.1"], Refusal::PrivateAddress),
        ("cloud.example.com", vec!["169.254.169.254"], Refusal::PrivateAddress),
        ("mapped.example.com", vec!["::ffff:127.0.0.1"], Refusal::PrivateAddress),
        ("mapped2.example.com", vec!["::ffff:127.0.0.77"], Refusal::PrivateAddress),
        ("six.example.com", vec!["::1"], Refusal::PrivateAddress),
        ("nat.example.com", vec!["64:ff9b::7f00:1"], Refusal::PrivateAddress),
        ("zero.example.com", vec!["0.0.0.0"], Refusal::PrivateAddress),
        // Rebinding: a good address and a bad one, in either order.
        ("mixed.example.com", vec!["127.0.0.77", "10.0.0.1"], Refusal::PrivateAddress),
        ("mixed2.example.com", vec!["10.0.0.1", "127.0.0.77"], Refusal::PrivateAddress),
        ("nobody.example.com", vec![], Refusal::Unresolvable),
    ];
    let names = addresses
        .iter()
        .map(|(name, list, _)| {
            (*name, list.iter().map(|a| a.parse().expect("an address")).collect())
        })
        .collect();
    let world = World { names, ..World::default() };
    let mut bench = Bench::with(allow(&[".example.com"], &[]), bounds(), world);
    for (name, _, refusal) in &addresses {
        let (_, answer) = bench.connect(&format!("{name}:443")).await;
        assert_eq!(reason(&answer), refusal.as_str(), "{name}");
        assert_eq!(bench.attempt(), ((*name).into(), 443, Err(*refusal)));
        let plain = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert_eq!(reason(&bench.raw(plain).await), refusal.as_str(), "{name}");
        assert_eq!(bench.attempt(), ((*name).into(), 80, Err(*refusal)));
    }
    assert!(bench.dialled().is_empty());
}

#[tokio::test]
async fn a_name_is_looked_up_once_for_a_connection() {
    let (listener, port) = public().await;
    let _echo = echo(listener);
    let bench = Bench::open(allow(&["example.com"], &[port]));
    let (mut stream, _) = bench.connect(&format!("example.com:{port}")).await;
    stream.write_all(&real("example.com")).await.expect("sent");
    within(stream.read_u8()).await.expect("connected");
    assert_eq!(*bench.world.asked.lock().expect("a log"), ["example.com"]);
    assert_eq!(bench.dialled(), [SocketAddr::new(PUBLIC, port)]);
}

#[tokio::test]
async fn tls_for_another_host_or_for_none_or_no_tls_never_reaches_the_server() {
    let (_listener, port) = public().await;
    let mut bench = Bench::open(allow(&[".example.com"], &[port]));
    let cut = records(&real("example.com")[5..], 9);
    for (bytes, refusal) in [
        (real("a.example.com"), Refusal::SniMismatch),
        (real("evil.org"), Refusal::SniMismatch),
        (real("127.0.0.1"), Refusal::NoSni),
        (b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec(), Refusal::NotTls),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), Refusal::NotTls),
        (vec![0; 100], Refusal::NotTls),
        (vec![22; 100_000], Refusal::NotTls),
        // Begun and left, and one that goes on for ever.
        (cut[..cut.len() - 1].to_vec(), Refusal::TooSlow),
        (
            [&[22, 3, 1, 0, 4, 1, 0, 0x3f, 0xf0][..], &[22, 3, 1, 0, 1, 0].repeat(4000)].concat(),
            Refusal::NotTls,
        ),
        (Vec::new(), Refusal::TooSlow),
    ] {
        let (mut stream, answer) = bench.connect(&format!("example.com:{port}")).await;
        assert_eq!(status(&answer), "200");
        let _ = stream.write_all(&bytes).await;
        let mut said = Vec::new();
        let _ = within(stream.read_to_end(&mut said)).await;
        let expected = if refusal == Refusal::NotTls {
            &[][..]
        } else {
            crate::gateway::egress::answer::TLS_DENIED
        };
        assert_eq!(said, expected, "{refusal:?}");
        assert_eq!(bench.attempt(), ("example.com".into(), port, Err(refusal)));
    }
    assert!(bench.dialled().is_empty());
}

#[tokio::test]
async fn ports_that_were_not_opened_stay_shut() {
    let mut bench = Bench::open(allow(&["example.com"], &[8443]));
    for (request, port) in [
        ("CONNECT example.com:22 HTTP/1.1\r\nHost: example.com:22\r\n\r\n", 22),
        ("CONNECT example.com:25 HTTP/1.1\r\nHost: example.com:25\r\n\r\n", 25),
        ("CONNECT example.com:80 HTTP/1.1\r\nHost: example.com:80\r\n\r\n", 80),
        ("GET http://example.com:443/ HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 443),
        ("GET http://example.com:11434/ HTTP/1.1\r\nHost: example.com:11434\r\n\r\n", 11434),
    ] {
        let answer = bench.raw(request).await;
        assert_eq!((status(&answer), reason(&answer)), ("403", "port"), "{request}");
        assert_eq!(bench.attempt(), ("example.com".into(), port, Err(Refusal::Port)));
    }
    assert!(bench.dialled().is_empty());
}

#[tokio::test]
async fn requests_that_are_not_a_proxys_are_refused_with_the_reason() {
    let (listener, port) = public().await;
    let server =
        Server::start_on(listener, |_, _, mut line| async move { line.reply(200, "", "").await });
    let mut bench = Bench::open(Egress { open: true, ports: vec![port], ..Egress::default() });
    let host = format!("example.com:{port}");
    for request in [
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET https://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://user@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/#x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: evil.org\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\r\n"),
        format!(
            "POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!("CONNECT {host} HTTP/1.1\r\nHost: evil.org\r\n\r\n"),
        format!("PUT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}./ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/2.0\r\nHost: {host}\r\n\r\n"),
    ] {
        let answer = bench.raw(&request).await;
        assert_eq!(status(&answer), "400", "{request}{answer}");
        assert!(answer.contains("sandbox-mcp: this request does not pass: "), "{answer}");
        let (_, _, outcome) = bench.attempt();
        assert_eq!(outcome, Err(Refusal::Malformed), "{request}");
    }
    for address in ["[::1]:80", "127.1:443", "0x7f000001:443", "2130706433:443", "0177.0.0.1:443"] {
        let answer =
            bench.raw(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n")).await;
        assert_eq!(reason(&answer), "ip_literal", "{address}");
        assert_eq!(bench.attempt().2, Err(Refusal::IpLiteral));
    }
    assert!(server.seen().is_empty() && bench.dialled().is_empty());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such() {
    let port = {
        let (_listener, port) = public().await;
        port
    };
    let mut bench = Bench::open(allow(&["example.com"], &[port]));
    let host = format!("example.com:{port}");
    let answer = bench.raw(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    assert_eq!((status(&answer), reason(&answer)), ("502", "unreachable"));
    assert_eq!(bench.attempt().2, Err(Refusal::Unreachable));
    let (mut stream, _) = bench.connect(&host).await;
    stream.write_all(&real("example.com")).await.expect("sent");
    read_all(&mut stream).await;
    assert_eq!(bench.attempt().2, Err(Refusal::Unreachable));
}
