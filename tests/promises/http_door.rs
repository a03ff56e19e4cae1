//! Who may talk to the HTTP server, and what a stranger can do to it.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::Full;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{Product, Web, Workspace};

async fn house(config: &str) -> (Product, Workspace, Web) {
    let product = Product::without_engine().config(config);
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    (product, workspace, web)
}

async fn close(product: Product, web: Web) {
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

fn empty() -> Full<bytes::Bytes> {
    Full::default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_made_private_shown_and_needed() {
    let (product, _workspace, web) = house("").await;
    let file = product.folder("state").join("http-token");
    assert_eq!(file.metadata().expect("a token").permissions().mode() & 0o777, 0o600);
    assert_eq!(web.token.len(), 43);
    let shown = product.call(["token"]).await;
    shown.assert_code(0);
    assert_eq!(shown.stdout, format!("{}\n", web.token));

    let health = web.send(web.bare(Method::GET, "/healthz").body(empty()).expect("sound")).await;
    assert_eq!((health.status, health.text().await.as_str()), (StatusCode::OK, "ok\n"));
    for path in ["/mcp", "/metrics"] {
        for given in [None, Some("Bearer wrong".to_owned()), Some(format!("Basic {}", web.token))] {
            let mut request = web.bare(Method::POST, path);
            if let Some(given) = &given {
                request = request.header("authorization", given);
            }
            let answer = web.send(request.body(empty()).expect("sound")).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {given:?}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            let body = answer.json().await;
            assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("sandbox-mcp token")));
        }
    }
    // Refused before a byte of the body has come.
    let head = format!("POST /mcp HTTP/1.1\r\nhost: {}\r\ncontent-length: 99\r\n\r\n", web.address);
    assert!(raw(&web, &head).await.starts_with("HTTP/1.1 401"));
    let log = web.stop().await;
    log.assert_code(0);
    let token = shown.stdout.trim();
    assert!(!log.stderr.contains(token), "the token is no matter for a log");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_token_is_in_force_at_once_and_an_unfit_one_opens_nothing() {
    let (product, _workspace, mut web) = house("").await;
    web.greeted().await;
    let rotated = product.call(["token", "--rotate"]).await;
    rotated.assert_code(0);
    let new = rotated.stdout.trim().to_owned();
    assert_ne!(new, web.token);
    assert_eq!(web.get("/metrics").await.status, StatusCode::UNAUTHORIZED, "the old one is void");
    web.token = new;
    web.greeted().await;

    let file = product.folder("state").join("http-token");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("chmod");
    let answer = web.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "others could have read it");
    assert!(!answer.text().await.contains("state"), "a stranger hears no path");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(web.get("/metrics").await.status, StatusCode::UNAUTHORIZED);
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_here_by_rebinding_is_turned_away() {
    let config = "[http]\nallowed_hosts = [\"mcp.example\"]\n";
    let (product, _workspace, web) = house(config).await;
    let port = web.address.port();
    let with = |host: String, path: &str| {
        let request = http::Request::get(path).header("host", host);
        request.header("authorization", format!("Bearer {}", web.token)).body(empty())
    };
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("mcp.example".into(), 200),
        (format!("evil.example:{port}"), 403),
        (format!("localhost.evil.example:{port}"), 403),
        ("localhost".into(), 403),
        (format!("localhost:{}", port ^ 1), 403),
        (format!("0.0.0.0:{port}"), 403),
    ] {
        for path in ["/metrics", "/healthz"] {
            let answer = web.send(with(host.clone(), path).expect("sound")).await;
            assert_eq!(answer.status.as_u16(), status, "{host} {path}");
        }
    }
    let told = web.send(with("evil.example".into(), "/mcp").expect("sound")).await.json().await;
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("allowed_hosts")), "{told}");
    assert!(raw(&web, "GET /healthz HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let twice = format!("GET /healthz HTTP/1.1\r\nhost: localhost:{port}\r\nhost: x\r\n\r\n");
    assert!(raw(&web, &twice).await.starts_with("HTTP/1.1 400"));
    let whole =
        format!("GET http://evil.example/healthz HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n");
    assert!(raw(&web, &whole).await.starts_with("HTTP/1.1 403"));
    close(product, web).await;
}

/// Sends bytes and reads to the end of the connection.
async fn raw(web: &Web, bytes: &str) -> String {
    let mut stream = TcpStream::connect(web.address).await.expect("it listens");
    stream.write_all(bytes.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_string(&mut answer));
    read.await.expect("an end in time").expect("text");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_are_turned_away_and_own_ones_may_read() {
    let config = "[http]\nallowed_origins = [\"https://chat.example\"]\n";
    let (product, _workspace, web) = house(config).await;
    for origin in ["http://localhost:3000", "http://127.0.0.1:8080", "https://chat.example"] {
        let preflight = web
            .bare(Method::OPTIONS, "/mcp")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, mcp-session-id")
            .body(empty());
        let answer = web.send(preflight.expect("sound")).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        for name in ["authorization", "mcp-session-id", "mcp-protocol-version", "last-event-id"] {
            assert!(answer.header("access-control-allow-headers").contains(name), "{name}");
        }
        let request =
            web.with_token(Method::GET, "/metrics").header("origin", origin).body(empty());
        let answer = web.send(request.expect("sound")).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        assert_eq!(answer.header("access-control-expose-headers"), "mcp-session-id");
        assert_eq!(answer.header("vary"), "origin");
    }
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "chat.example"]
    {
        for method in [Method::OPTIONS, Method::GET, Method::POST] {
            let request = web.with_token(method, "/mcp").header("origin", origin).body(empty());
            let answer = web.send(request.expect("sound")).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin}");
            assert_eq!(answer.header("access-control-allow-origin"), "");
        }
    }
    let none = web.send(web.bare(Method::OPTIONS, "/mcp").body(empty()).expect("sound")).await;
    assert_eq!(none.status, StatusCode::UNAUTHORIZED, "only pages need a preflight");
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_heads_are_bounded() {
    let (product, _workspace, web) = house("[limits]\ntask = \"64k\"\n").await;
    let client = web.greeted().await;
    // The longest task in its longest form fits; a byte over the bound does not.
    let longest = (64 << 10) * 6 + (1 << 20);
    let padded = |size: usize| {
        let mut body = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string();
        body += &" ".repeat(size - body.len());
        client.builder(Method::POST).body(Full::from(body)).expect("sound")
    };
    assert_eq!(web.send(padded(longest)).await.status, StatusCode::OK);
    let refused = web.send(padded(longest + 1)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(refused.json().await["hint"].as_str().is_some_and(|hint| hint.contains("limits.task")));
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        web.address, web.token
    );
    let mut stream = TcpStream::connect(web.address).await.expect("it listens");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(chunk.as_bytes()).await.is_ok() {
        sent += 0x10000;
    }
    assert!(sent < 32 << 20, "it stops reading a body without length: {sent}");

    let host = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n", web.address);
    let many = "x-more: 1\r\n".repeat(100);
    assert!(raw(&web, &format!("{host}{many}\r\n")).await.starts_with("HTTP/1.1 431"));
    let long = format!("{host}x: {}\r\n\r\n", "y".repeat(200 << 10));
    let mut stream = TcpStream::connect(web.address).await.expect("it listens");
    stream.write_all(long.as_bytes()).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    client.ask("ping", json!({})).await;
    close(product, web).await;
}

/// The product's own bound is 15 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_not_waited_for_and_blocks_nobody() {
    let (product, _workspace, web) = house("[http]\nconnections = 4\n").await;
    let mut slow = Vec::new();
    for start in ["", "GET /mcp HTTP/1.1\r\nhost: ", "GET /mcp HTTP/1.1\r\nx: y\r\n"] {
        let mut stream = TcpStream::connect(web.address).await.expect("it listens");
        stream.write_all(start.as_bytes()).await.expect("it reads");
        slow.push(stream);
    }
    let began = Instant::now();
    web.greeted().await;
    assert!(began.elapsed() < Duration::from_secs(10), "one place is left");
    slow.push(TcpStream::connect(web.address).await.expect("it listens"));
    let drip = async {
        for stream in &mut slow {
            let mut bytes = Vec::new();
            // A drop now and then does not help.
            let dripping = async {
                loop {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    if stream.write_all(b"a").await.is_err() {
                        return;
                    }
                    if let Ok(Ok(_)) = tokio::time::timeout(
                        Duration::from_millis(50),
                        stream.read_to_end(&mut bytes),
                    )
                    .await
                    {
                        return;
                    }
                }
            };
            dripping.await;
        }
    };
    tokio::time::timeout(Duration::from_secs(35), drip).await.expect("all four were let go");
    web.greeted().await;
    close(product, web).await;
}

/// What may be asked without the token is asked in bulk, and no answer is ever read.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_that_reads_no_answer_keeps_no_place() {
    let (product, _workspace, web) = house("[http]\nconnections = 4\n").await;
    let health = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", web.address);
    let preflight = format!(
        "OPTIONS /mcp HTTP/1.1\r\nhost: {}\r\norigin: http://localhost\r\n\r\n",
        web.address
    );
    let mut deaf = Vec::new();
    for request in [&health, &preflight, &health, &preflight] {
        let mut stream = TcpStream::connect(web.address).await.expect("it listens");
        let many = request.repeat(1000);
        // Until nothing more goes in, or the connection is gone.
        let flood = async { while stream.write_all(many.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(5), flood).await.ok();
        deaf.push(stream);
    }
    let served = tokio::time::timeout(Duration::from_secs(5), web.greeted()).await;
    assert!(served.is_ok(), "the places are free again");
    drop(deaf);
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_a_yes() {
    let product = Product::without_engine();
    let refused = product.call(["serve", "--http", "0.0.0.0:0"]).await;
    refused.assert_code(1);
    for word in ["other machines", "--allow-remote", "TLS"] {
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    for (args, config) in [
        (&["serve", "--http", "0.0.0.0:0", "--allow-remote"][..], ""),
        (&["serve", "--http", "0.0.0.0:0"][..], "[http]\nallow_remote = true\n"),
    ] {
        let product = Product::without_engine().config(config);
        let server = product.start(product.command(args));
        server.stderr.says("serving MCP at http://0.0.0.0:").await;
        server.signal(rustix::process::Signal::TERM);
        server.wait().await.assert_code(0);
        product.check_nothing_left().await;
    }
    let lonely = product.call(["serve", "--allow-remote"]).await;
    lonely.assert_code(2);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_says_what_to_do() {
    let (product, _workspace, web) = house("").await;
    assert_eq!(web.server.stderr.text(), format!("serving MCP at {}\n", web.url()));
    let second = product.call(["serve", "--http", &web.address.to_string()]).await;
    second.assert_code(1);
    for word in ["something else listens", "ss -ltnp", "another port"] {
        assert!(second.stderr.contains(word), "{}", second.stderr);
    }
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_say_where_things_are() {
    let (product, _workspace, web) = house("").await;
    for path in ["/", "/sse", "/mcp/x", "/.well-known/oauth-protected-resource"] {
        let answer = web.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.text().await.contains("/mcp"));
    }
    let posted = web.with_token(Method::POST, "/metrics").body(empty()).expect("sound");
    assert_eq!(web.send(posted).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let put = web.with_token(Method::PUT, "/mcp").body(empty()).expect("sound");
    assert_eq!(web.send(put).await.status, StatusCode::METHOD_NOT_ALLOWED);
    close(product, web).await;
}
