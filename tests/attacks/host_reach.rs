//! Reaching the host: canaries listen on every address of this machine, and see nothing.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::common::{Workspace, eventually};
use crate::inside::attack;

/// What arrived where, in words.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn note(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Canaries {
    addresses: Vec<IpAddr>,
    tcp: Vec<u16>,
    udp: Vec<u16>,
    abstract_name: String,
    named: std::path::PathBuf,
    seen: Seen,
    _folder: tempfile::TempDir,
}

impl Canaries {
    /// One of each on any address of both families; on port 53 as well where that can be had.
    fn start() -> Self {
        let seen = Seen::default();
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        let mut listen = |port: u16| {
            for any in [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)] {
                if let Ok(listener) = TcpListener::bind((any, port)) {
                    tcp.push(listener.local_addr().expect("an address").port());
                    let seen = seen.clone();
                    std::thread::spawn(move || {
                        for stream in listener.incoming().flatten() {
                            seen.note(format!("tcp from {:?}", stream.peer_addr()));
                            answer(stream);
                        }
                    });
                }
                if let Ok(socket) = UdpSocket::bind((any, port)) {
                    udp.push(socket.local_addr().expect("an address").port());
                    let seen = seen.clone();
                    std::thread::spawn(move || {
                        let mut buffer = [0; 512];
                        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                            seen.note(format!("udp from {from}"));
                            socket.send_to(b"seen", from).ok();
                        }
                    });
                }
            }
        };
        listen(0);
        listen(53);
        let folder = tempfile::Builder::new().prefix("sc-").tempdir_in("/tmp").expect("a folder");
        let named = folder.path().join("canary.sock");
        let abstract_name = format!("sandbox-mcp-canary-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&abstract_name).expect("a name");
        for listener in [UnixListener::bind_addr(&address), UnixListener::bind(&named)] {
            let (listener, seen) = (listener.expect("a socket"), seen.clone());
            std::thread::spawn(move || {
                for _ in listener.incoming().flatten() {
                    seen.note("unix".into());
                }
            });
        }
        for ports in [&mut tcp, &mut udp] {
            ports.sort_unstable();
            ports.dedup();
        }
        Self { addresses: addresses(), tcp, udp, abstract_name, named, seen, _folder: folder }
    }

    /// The host itself reaches every one of them, so none is deaf; how many answered.
    async fn check_they_hear(&self) -> usize {
        let mut reached = 0;
        for address in &self.addresses {
            for port in &self.tcp {
                let target = SocketAddr::new(*address, *port);
                let Ok(mut stream) = TcpStream::connect_timeout(&target, Duration::from_secs(1))
                else {
                    continue;
                };
                stream.write_all(b"x").expect("sent");
                let mut word = String::new();
                stream.read_to_string(&mut word).expect("an answer");
                assert_eq!(word, "seen", "{target}");
                reached += 1;
            }
        }
        let loopback = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        loopback.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let mut heard = 0;
        for port in &self.udp {
            loopback.send_to(b"x", ("127.0.0.1", *port)).expect("sent");
            heard += usize::from(loopback.recv_from(&mut [0; 64]).is_ok());
        }
        assert!(heard > 0, "no UDP canary hears");
        let address = UnixAddress::from_abstract_name(&self.abstract_name).expect("a name");
        UnixStream::connect_addr(&address).expect("the abstract canary hears");
        UnixStream::connect(&self.named).expect("the named canary hears");
        let noted = AtomicUsize::new(0);
        eventually("the canaries to note it", Duration::from_secs(10), || {
            let count = noted.fetch_add(self.seen.take().len(), Ordering::Relaxed);
            (count >= reached + heard + 2).then_some(())
        })
        .await;
        reached
    }
}

fn answer(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).ok();
    stream.read_exact(&mut [0; 1]).ok();
    stream.write_all(b"seen").ok();
}

/// Every address of this machine, as the kernel lists them: of all interfaces, with the engine's
/// bridge among them.
fn addresses() -> Vec<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (four, six) = (read("/proc/net/fib_trie"), read("/proc/net/if_inet6"));
    let mut found: Vec<IpAddr> = Vec::new();
    let mut last = None;
    for line in four.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["|--", address] => last = address.parse::<Ipv4Addr>().ok(),
            ["/32", "host", "LOCAL"] => found.extend(last.map(IpAddr::from)),
            _ => {}
        }
    }
    for line in six.lines() {
        let digits = line.split_whitespace().next().expect("an address");
        let number = u128::from_str_radix(digits, 16).expect("hexadecimal");
        found.push(Ipv6Addr::from(number).into());
    }
    found.sort_unstable();
    found.dedup();
    assert!(found.iter().any(IpAddr::is_loopback), "{found:?}");
    assert!(found.len() > 1, "this machine has no address but loopback: {found:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_not_there() {
    let canaries = Canaries::start();
    let reached = canaries.check_they_hear().await;
    assert!(reached >= canaries.addresses.len(), "{reached} of {:?}", canaries.addresses);
    let home = Workspace::new();
    home.write("reach.py", include_str!("inside/reach.py"));
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let targets = json!({
        "word": "canary-word", "addresses": canaries.addresses, "tcp": canaries.tcp,
        "udp": canaries.udp, "abstract": [canaries.abstract_name], "named": [canaries.named],
        "hostname": hostname.trim(),
    });
    home.write("targets.json", &targets.to_string());

    let seen = attack(&home, "timeout 100 python reach.py").await;

    assert_eq!(canaries.seen.take(), [] as [String; 0], "what the canaries saw");
    let told: Vec<&str> = seen.told.lines().collect();
    let line = |start: &str| -> &str {
        told.iter()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start} was not tried: {}", seen.told))
    };
    for control in ["own tcp", "own udp", "own abstract", "own named"] {
        assert!(line(&format!("control {control}:")).contains("REACHED"), "{}", seen.told);
    }
    let mut tries = 0;
    for address in &canaries.addresses {
        for (way, ports) in [("tcp", &canaries.tcp), ("udp", &canaries.udp), ("dns", &canaries.udp)]
        {
            for port in ports {
                assert!(line(&format!("{way} {address} {port}:")).contains(": no "));
                tries += 1;
            }
        }
    }
    assert!(tries >= 12, "{tries}");
    let got: Vec<&&str> = told
        .iter()
        .filter(|line| line.contains("REACHED") && !line.starts_with("control "))
        .collect();
    assert_eq!(got, [] as [&&str; 0]);
    for (start, expected) in [
        ("routes:", "routes: []"),
        ("links:", "links: ['lo'], also []"),
        ("addresses:", "addresses: ['127.0.0.1']"),
        ("neighbours:", "neighbours: []"),
        ("engine's resolver by udp:", "engine's resolver by udp: no ECONNREFUSED"),
        ("engine's resolver by tcp:", "engine's resolver by tcp: no ECONNREFUSED"),
        ("abstract socket:", "abstract socket: no ECONNREFUSED"),
        ("named socket:", "named socket: no ENOENT"),
        ("broadcast:", "broadcast: no ENETUNREACH"),
    ] {
        let told = line(start);
        // A UDP socket that is not connected may only time out.
        let silent =
            told.replace("TimeoutError", "ECONNREFUSED").replace("ETIMEDOUT", "ECONNREFUSED");
        assert!(told == expected || silent == expected, "{told}");
    }
    for start in [
        "name host.docker.internal:",
        "name example.com:",
        "socket 17 3 768:",
        "socket 40 1 0:",
        "multicast 6:",
    ] {
        assert!(line(start).contains(": no "), "{}", line(start));
    }
}
