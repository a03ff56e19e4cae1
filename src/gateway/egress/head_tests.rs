use super::*;

fn read(text: &str) -> Result<Head, Refusal> {
    parse(text.as_bytes()).map_err(|bad| bad.reason)
}

fn connect(target: &str) -> Result<Head, Refusal> {
    read(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"))
}

fn get(target: &str, host: &str) -> Result<Head, Refusal> {
    read(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

fn head(kind: Kind, name: &str, port: u16) -> Head {
    Head { kind, name: Name::parse(name).expect("a name"), port }
}

#[test]
fn what_ordinary_clients_send_passes() {
    let tunnel = head(Kind::Connect, "example.com", 443);
    for text in [
        // curl, Node, Go, and Python 3.11.
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: curl\r\nProxy-Connection: Keep-Alive\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n\r\n",
        "CONNECT Example.COM:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        "CONNECT example.com:443 HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(read(text), Ok(tunnel.clone()), "{text}");
    }
    assert_eq!(get("http://example.com", "example.com"), Ok(head(Kind::Http, "example.com", 80)));
    let with_port = get("http://example.com:8080/a%20b?c=http://x@y:1/", "example.com:8080");
    assert_eq!(with_port, Ok(head(Kind::Http, "example.com", 8080)));
    assert_eq!(
        read(
            "POST http://a.example.com?x HTTP/1.1\r\nHost: a.example.com:80\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        Ok(head(Kind::Http, "a.example.com", 80)),
    );
}

#[test]
fn targets_with_tricks_do_not_pass() {
    for target in [
        "",
        "/",
        "*",
        ":443",
        "example.com",
        "example.com:",
        "example.com:0",
        "example.com:00443",
        "example.com:+443",
        "example.com:65536",
        "example.com:443x",
        "example.com:443:443x",
        "user@example.com:443",
        "user:pw@example.com:443",
        "example.com:443@evil.com:443",
        "http://example.com:443",
        "example.com:443/",
        "example.com:443#x",
        "example.com:443?x",
        "example%2ecom:443",
        "example.com%00.evil.org:443",
        "example.com.:443",
        "localhost:443",
        "exämple.com:443",
        "example.com\t:443",
        "example.com\0:443",
        "example.com\\:443",
    ] {
        let refused = connect(target).expect_err(target);
        assert!(matches!(refused, Refusal::Malformed | Refusal::BadName), "{target} {refused:?}");
    }
    for target in [
        "/",
        "*",
        "https://example.com/",
        "HTTP://example.com/",
        "ftp://example.com/",
        "http:/example.com/",
        "http:///x",
        "http://",
        "http://?x",
        "//example.com/",
        "example.com",
        "http://example.com/#x",
        "http://user@example.com/",
        "http://user:pw@example.com/",
        "http://example.com\\@evil.org/",
        "http://example.com:0/",
        "http://example.com:/",
        "http://exa%6dple.com/",
        "http://example.com./",
    ] {
        let refused = get(target, "example.com").expect_err(target);
        assert!(matches!(refused, Refusal::Malformed | Refusal::BadName), "{target} {refused:?}");
    }
}

#[test]
fn addresses_are_told_apart_from_mistakes() {
    for address in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "8.8.8.8",
    ] {
        assert_eq!(connect(&format!("{address}:443")), Err(Refusal::IpLiteral), "{address}");
        let url = format!("http://{address}/");
        assert_eq!(get(&url, address), Err(Refusal::IpLiteral), "{address}");
    }
    assert!(connect("::1:443").is_err());
}

#[test]
fn the_host_header_must_be_one_and_name_the_target() {
    let url = "http://example.com/";
    for host in
        ["evil.org", "example.com:8080", "example.com, evil.org", "", "example.com@evil.org"]
    {
        assert_eq!(get(url, host), Err(Refusal::Malformed), "{host}");
        let tunnel = format!("CONNECT example.com:443 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(read(&tunnel), Err(Refusal::Malformed), "{host}");
    }
    for hosts in [
        "",
        "Host: example.com\r\nHost: example.com\r\n",
        "Host: example.com\r\nhost: evil.org\r\n",
    ] {
        assert_eq!(read(&format!("GET {url} HTTP/1.1\r\n{hosts}\r\n")), Err(Refusal::Malformed));
        let tunnel = format!("CONNECT example.com:443 HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(read(&tunnel), Err(Refusal::Malformed), "{hosts}");
    }
    // HTTP/1.0 may leave it out, but not lie.
    assert!(read("GET http://example.com/ HTTP/1.0\r\n\r\n").is_ok());
    let lie = "GET http://example.com/ HTTP/1.0\r\nHost: evil.org\r\n\r\n";
    assert_eq!(read(lie), Err(Refusal::Malformed));
}

#[test]
fn two_opinions_about_a_body_do_not_pass() {
    for framing in [
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "X: a\r\n b\r\n",
        "X: a\n",
        "X: a\r",
        "X: a\0b\r\n",
        " X: a\r\n",
        "X\r\n",
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\nUpgrade: h2c\r\n",
    ] {
        let request =
            format!("POST http://example.com/ HTTP/1.1\r\nHost: example.com\r\n{framing}\r\n");
        assert_eq!(read(&request), Err(Refusal::Malformed), "{framing:?}");
    }
    let body = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(read(body), Err(Refusal::Malformed));
}

#[test]
fn other_methods_versions_and_garbage_do_not_pass() {
    for method in ["TRACE", "PRI", "get", "CONNECTX", "PROPFIND", ""] {
        let request = format!("{method} http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n");
        assert_eq!(read(&request), Err(Refusal::Malformed), "{method}");
    }
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "", "X"] {
        let request = format!("GET http://example.com/ {version}\r\nHost: example.com\r\n\r\n");
        assert_eq!(read(&request), Err(Refusal::Malformed), "{version}");
    }
    let many = format!("GET http://example.com/ HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    for garbage in ["", "\r\n\r\n", "\r\nGET http://example.com/ HTTP/1.1\r\n\r\n", "x", &many] {
        assert_eq!(read(garbage), Err(Refusal::Malformed), "{garbage:?}");
    }
    let behind = "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\nX";
    assert_eq!(read(behind), Err(Refusal::Malformed), "the caller cuts what is behind");
    for seen in 0..behind.len() - 1 {
        assert_eq!(end(behind.as_bytes(), seen), Some(behind.len() - 1), "{seen}");
    }
}

#[test]
fn what_was_refused_is_named_as_far_as_it_can_be_read() {
    let bad = parse(b"CONNECT 10.0.0.1:8080 HTTP/1.1\r\n\r\n").expect_err("refused");
    assert_eq!((bad.kind, bad.target.as_str(), bad.port), (Kind::Connect, "10.0.0.1", 8080));
    let bad = parse(b"GET https://example.com/x HTTP/1.1\r\n\r\n").expect_err("refused");
    assert_eq!((bad.kind, bad.target.as_str(), bad.port), (Kind::Http, "example.com", 80));
    let bad = parse(b"\xff\xfe\x00").expect_err("refused");
    assert_eq!((bad.kind, bad.port), (Kind::Http, 0));
}
