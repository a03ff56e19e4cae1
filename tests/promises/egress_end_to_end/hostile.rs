//! Requests that two readers could understand differently: the server gets one clean request or
//! none at all.

use std::fmt::Write as _;

use serde_json::json;

use super::Outing;
use crate::common::Internet;

/// What is hidden in or behind other requests.
const INNER: &str = "GET http://shop.example.com/inner HTTP/1.1\r\nHost: shop.example.com\r\n\r\n";

/// Sends each request of the file as it is, all at once, and writes the first line's code.
const SEND: &str = r#"
import concurrent.futures, json, socket
def send(case):
    name, text = case
    with socket.create_connection(("127.0.0.1", 4142), 5) as stream:
        stream.settimeout(15)
        stream.sendall(text.encode("latin-1"))
        answer = b""
        try:
            while piece := stream.recv(65536): answer += piece
        except OSError: pass
    words = answer.split(b"\r\n")[0].split()
    return f"{name}: {words[1].decode() if len(words) > 1 else None}"
cases = json.load(open("cases.json"))
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in pool.map(send, cases): print(line)
"#;

/// With a target and headers besides `Host`.
fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: shop.example.com\r\n{headers}\r\n")
}

/// With framing headers and a body, and another request behind it.
fn post(name: &str, framing: &str, body: &str) -> String {
    format!(
        "POST http://shop.example.com/{name} HTTP/1.1\r\nHost: shop.example.com\r\n{framing}\r\n{body}{INNER}"
    )
}

/// Reach the server, once and clean.
fn pass() -> Vec<(&'static str, String)> {
    let url = |name: &str| format!("http://shop.example.com/echo?{name}");
    let mut cases = vec![
        ("two-at-once", get(&url("two-at-once"), "") + INNER),
        (
            "names-hops",
            get(
                &url("names-hops"),
                "Connection: close, X-Hop\r\nX-Hop: dropped\r\nTE: trailers\r\n",
            ),
        ),
        ("names-host", get(&url("names-host"), "Connection: host\r\n")),
        (
            "proxy-words",
            get(
                &url("proxy-words"),
                "Proxy-Authorization: Basic ZHJvcHBlZA==\r\nProxy-Connection: keep-alive\r\n",
            ),
        ),
        ("one-oh", format!("GET {} HTTP/1.0\r\n\r\n", url("one-oh"))),
        ("case", get(&url("case").replace("shop.example", "SHOP.Example"), "")),
        ("port", get(&url("port").replace(".com", ".com:80"), "")),
    ];
    for (name, framing, body) in [
        ("length", "Content-Length: 2\r\n", "{}"),
        ("chunks", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
        ("names-length", "Connection: content-length\r\nContent-Length: 2\r\n", "{}"),
        ("trailers", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\nHost: evil.net\r\n\r\n"),
    ] {
        cases.push((name, post(&format!("echo?{name}"), framing, body)));
    }
    cases
}

/// Do not, with 400 or 403.
fn fail() -> Vec<(&'static str, String)> {
    let mut cases = vec![];
    for (name, framing) in [
        ("length-and-chunks", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"),
        ("chunks-and-length", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"),
        ("two-lengths", "Content-Length: 6\r\nContent-Length: 0\r\n"),
        ("same-lengths", "Content-Length: 0\r\nContent-Length: 0\r\n"),
        ("list-of-lengths", "Content-Length: 0, 0\r\n"),
        ("signed-length", "Content-Length: +6\r\n"),
        ("hexadecimal-length", "Content-Length: 0x6\r\n"),
        ("huge-length", "Content-Length: 18446744073709551622\r\n"),
        ("two-codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("list-of-codings", "Transfer-Encoding: chunked, identity\r\n"),
        ("strange-coding", "Transfer-Encoding: xchunked\r\n"),
        ("tab-coding", "Transfer-Encoding:\u{b}chunked\r\n"),
        ("space-before-colon", "Transfer-Encoding : chunked\r\n"),
        ("folded", "Transfer-Encoding:\r\n chunked\r\n"),
        ("bare-line-feed", "X: y\nTransfer-Encoding: chunked\r\n"),
        ("bare-return", "X: y\rTransfer-Encoding: chunked\r\n"),
        ("nul", "X: y\0Transfer-Encoding: chunked\r\n"),
        ("second-host", "Host: evil.net\r\n"),
        ("same-host-twice", "Host: shop.example.com\r\n"),
        (
            "upgrade",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        ),
    ] {
        cases.push((name, post(name, framing, "0\r\n\r\n")));
    }
    let old = post("chunks-in-one-oh", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
    cases.push(("chunks-in-one-oh", old.replacen("HTTP/1.1", "HTTP/1.0", 1)));
    for (name, target) in [
        ("user-before", "http://shop.example.com@evil.net/"),
        ("user-behind", "http://evil.net@shop.example.com/"),
        ("user-and-port", "http://shop.example.com:80@evil.net/"),
        ("fragment", "http://evil.net#@shop.example.com/"),
        ("encoded-dot", "http://shop%2eexample.com/"),
        ("encoded-nul", "http://shop.example.com%00.evil.net/"),
        ("encoded-slash", "http://shop.example.com%2f.evil.net/"),
        ("backslash", "http://evil.net\\@shop.example.com/"),
        ("backslash-host", "http://shop.example.com\\.evil.net/"),
        ("wide-dot", "http://shop\u{e3}\u{80}\u{82}example.com/"),
        ("two-ports", "http://shop.example.com:80:22/"),
        ("no-port", "http://shop.example.com:/"),
        ("port-overflow", "http://shop.example.com:65616/"),
        ("port-sign", "http://shop.example.com:+80/"),
        ("other-scheme", "https://shop.example.com/"),
        ("ftp", "ftp://shop.example.com/"),
        ("three-slashes", "http:///shop.example.com/"),
        ("no-slashes", "http:shop.example.com/"),
        ("relative", "//shop.example.com/"),
        ("origin", "/"),
        ("star", "*"),
        ("target-only", "http://evil.net/"),
        ("space", "http://shop.example.com/ http://evil.net/"),
        ("tab", "http://shop.example.com/\thttp://evil.net/"),
        ("address-and-host", "http://8.20.30.10/"),
    ] {
        cases.push((name, get(target, "")));
    }
    let plain = get("http://shop.example.com/", "");
    for (name, from, to) in [
        ("host-of-another", "Host: shop.example.com", "Host: evil.net"),
        ("host-of-an-address", "Host: shop.example.com", "Host: 10.1.2.3"),
        ("host-with-port", "Host: shop.example.com", "Host: shop.example.com:22"),
        ("host-list", "Host: shop.example.com", "Host: shop.example.com, evil.net"),
        ("no-host", "Host: shop.example.com\r\n", ""),
        ("small-method", "GET", "get"),
        ("trace", "GET", "TRACE"),
        ("strange-method", "GET", "PROPFIND"),
        ("empty-line-first", "GET", "\r\nGET"),
        ("space-first", "GET", " GET"),
        ("version-nine", " HTTP/1.1", ""),
        ("version-two", "HTTP/1.1", "HTTP/2.0"),
        ("version-list", "HTTP/1.1", "HTTP/1.1,1.0"),
    ] {
        cases.push((name, plain.replacen(from, to, 1)));
    }
    for (name, target, host, more) in [
        ("tunnel-for-another", "evil.net:443", "shop.example.com:443", ""),
        ("tunnel-as-another", "shop.example.com:443", "evil.net:443", ""),
        ("tunnel-with-user", "shop.example.com@evil.net:443", "shop.example.com:443", ""),
        ("tunnel-without-port", "shop.example.com", "shop.example.com", ""),
        ("tunnel-port-padded", "shop.example.com:0443", "shop.example.com:443", ""),
        ("tunnel-port-overflow", "shop.example.com:65979", "shop.example.com:65979", ""),
        ("tunnel-with-url", "http://shop.example.com:443/", "shop.example.com:443", ""),
        (
            "tunnel-with-body",
            "shop.example.com:443",
            "shop.example.com:443",
            "Content-Length: 1\r\n",
        ),
        ("tunnel-to-address", "8.20.30.10:443", "8.20.30.10:443", ""),
        ("tunnel-to-six", "[2600:20:2::10]:443", "[2600:20:2::10]:443", ""),
        ("tunnel-ssh", "shop.example.com:22", "shop.example.com:22", ""),
    ] {
        cases.push((name, format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")));
    }
    cases
}

/// Break in the middle of a body, when the server knows of the request already. It may see that
/// one, unfinished, and nothing else.
fn break_off() -> Vec<(&'static str, String)> {
    let cases = [
        ("chunk-line-feed", "2;x\n{}\r\n0\r\n\r\n"),
        ("chunk-negative", "-1\r\n"),
        ("chunk-overflow", "fffffffffffffffff\r\n"),
        ("chunk-sign", "+2\r\n{}\r\n0\r\n\r\n"),
        ("chunk-hexadecimal", "0x2\r\n{}\r\n0\r\n\r\n"),
        ("chunk-too-short", "1\r\n{}\r\n0\r\n\r\n"),
        ("chunk-bare-return", "2\r{}\r\n0\r\n\r\n"),
    ];
    let coding = "Transfer-Encoding: chunked\r\n";
    cases.map(|(name, body)| (name, post(&format!("echo?{name}"), coding, body))).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_gets_one_clean_request_or_none() {
    let Some(internet) = Internet::start() else { return };
    let (pass, fail, broken) = (pass(), fail(), break_off());
    let cases = json!([&pass[..], &fail[..], &broken[..]].concat()).to_string();
    let config = "[egress]\nallow = [\"shop.example.com\"]\n";
    let files = [("cases.json", cases.as_str()), ("send.py", SEND)];
    let outing = Outing::new(&internet, config, &[], &files, "python3 send.py").await;

    let answer = |name: &str| {
        let line = outing.told.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name} did not run: {}", outing.told)).to_owned()
    };
    let mut wrong = String::new();
    for (name, _) in &pass {
        if answer(name) != "200" {
            let _ = writeln!(wrong, "{name} did not pass: {}", answer(name));
        }
    }
    for (name, _) in &fail {
        if !["400", "403"].contains(&answer(name).as_str()) {
            let _ = writeln!(wrong, "{name} was not refused: {}", answer(name));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");

    let asked = internet.asked();
    for (name, _) in &pass {
        let target = format!("/echo?{name}");
        let seen: Vec<_> = asked.iter().filter(|asked| asked.target == target).collect();
        assert_eq!(seen.len(), 1, "{name}: {seen:?}");
        let asked = seen[0];
        assert_eq!(asked.host(), "shop.example.com", "{name}");
        for hop in ["x-hop", "te", "proxy-authorization", "proxy-connection", "upgrade"] {
            assert_eq!(asked.header(hop), "", "{name}: {hop}");
        }
        assert_eq!(asked.body, if asked.method == "POST" { "{}" } else { "" }, "{name}");
        assert!(
            !(asked.headers.contains_key("content-length")
                && asked.headers.contains_key("transfer-encoding"))
        );
    }
    let known = |target: &str| {
        let mut names = pass.iter().chain(&broken).map(|(name, _)| format!("/echo?{name}"));
        names.any(|name| name == target)
    };
    for asked in &asked {
        assert!(known(&asked.target) && asked.host() == "shop.example.com", "{asked:?}");
    }
    let visits = internet.visits();
    assert!(visits.len() >= pass.len() && visits.len() <= pass.len() + broken.len());
    for visit in visits {
        let bytes = String::from_utf8_lossy(&visit.bytes);
        assert_eq!(visit.to.to_string(), "8.20.30.10:80");
        assert!(bytes.matches("HTTP/1.").count() <= 1 && !bytes.contains("evil.net"), "{bytes}");
    }
    for attempt in outing.attempts() {
        let reason = &attempt["outcome"]["reason"];
        assert!(reason.is_null() || reason != "unreachable", "{attempt}");
    }
}
