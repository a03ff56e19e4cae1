//! Ports of this machine.

use super::*;

async fn local() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

#[tokio::test]
async fn an_opened_port_is_reached_and_no_other() {
    let (listener, port) = local().await;
    let _echo = echo(listener);
    let (_other, shut) = local().await;
    let egress = Egress { host_ports: vec![port, port], ..Egress::default() };
    let mut bench = Bench::open(egress);
    let mut stream = bench.dial_on(&format!("port-{port}.sock")).await;
    stream.write_all(b"hello").await.expect("sent");
    stream.shutdown().await.expect("shut");
    assert_eq!(read_all(&mut stream).await, "hello");
    assert_eq!(bench.attempt(), ("localhost".into(), port, Ok(())));
    let record = bench.gateway.record().egress;
    assert_eq!((record.allowed, record.bytes_sent, record.bytes_received), (1, 5, 5));
    let socket = bench.gateway.folder().join(format!("port-{shut}.sock"));
    UnixStream::connect(socket).await.expect_err("it was not opened");
    // Not through the proxy either, whatever the port is called.
    for target in [format!("localhost:{port}"), format!("127.0.0.1:{port}")] {
        let (_, answer) = bench.connect(&target).await;
        assert!(matches!(status(&answer), "400" | "403"), "{answer}");
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_told_and_closed() {
    let port = crate::model::testing::closed_port().await;
    let mut bench = Bench::open(Egress { host_ports: vec![port], ..Egress::default() });
    let mut stream = bench.dial_on(&format!("port-{port}.sock")).await;
    assert_eq!(read_all(&mut stream).await, "");
    assert_eq!(bench.attempt(), ("localhost".into(), port, Err(Refusal::Unreachable)));
}

#[tokio::test]
async fn a_port_on_the_sixth_loopback_is_found_too() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else { return };
    let port = listener.local_addr().expect("an address").port();
    let _echo = echo(listener);
    let bench = Bench::open(Egress { host_ports: vec![port], ..Egress::default() });
    let mut stream = bench.dial_on(&format!("port-{port}.sock")).await;
    stream.write_all(b"six").await.expect("sent");
    stream.shutdown().await.expect("shut");
    assert_eq!(read_all(&mut stream).await, "six");
}

#[tokio::test]
async fn one_gateways_sockets_are_not_anothers() {
    let (listener, port) = local().await;
    let _echo = echo(listener);
    let one = Bench::open(Egress { host_ports: vec![port], ..allow(&["example.com"], &[]) });
    let mut two = Bench::open(Egress::default());
    assert!(one.gateway.folder().join(format!("port-{port}.sock")).exists());
    assert!(!two.gateway.folder().join(format!("port-{port}.sock")).exists());
    let (_, answer) = two.connect("example.com:443").await;
    assert_eq!(reason(&answer), "not_allowed");
    assert_eq!(two.attempts().len(), 1);
    assert_eq!((one.gateway.record().egress.refused, two.gateway.record().egress.refused), (0, 1));
}

#[tokio::test]
async fn port_zero_is_no_port() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let options = Options {
        folder: place.path().join("run"),
        owner: None,
        endpoint: Endpoint::rehearsal(),
        limits: Limits::default(),
        egress: Egress { host_ports: vec![0], ..Egress::default() },
    };
    let error = Gateway::open(options).await.expect_err("refused").to_string();
    assert!(error.contains("1 to 65535"), "{error}");
    assert!(!place.path().join("run").exists());
}
