//! Two network namespaces with one cable between them, and nothing else.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip` keeps the names of namespaces, and what it lays over /etc for those inside.
const NAMES: &str = "/run/netns";
const SETTINGS: &str = "/etc/netns";
const PREFIX: &str = "sm-";

/// Of several in one process.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// The two ends of the cable.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Where the product lives.
    Lab,
    /// All the rest of the world.
    World,
}

/// Gone when dropped; what a killed test left is removed by the next one.
pub struct Namespaces {
    lab: String,
    world: String,
}

impl Namespaces {
    /// `addresses` are those of the world besides its end of the cable.
    pub fn new(addresses: &[IpAddr], resolver: &str) -> Self {
        sweep();
        let own =
            format!("{PREFIX}{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        // A guard from the first step on.
        let made = Self { lab: format!("{own}-lab"), world: format!("{own}-net") };
        let (lab, world) = (made.lab.as_str(), made.world.as_str());
        ip(["netns", "add", lab]);
        ip(["netns", "add", world]);
        ip(["link", "add", "lan", "netns", lab, "type", "veth", "peer", "lan", "netns", world]);
        for (end, v4, v6) in [
            (lab, format!("{}/24", super::LAB), format!("{}/64", super::LAB_V6)),
            (world, format!("{}/24", super::ROUTER), format!("{}/64", super::ROUTER_V6)),
        ] {
            ip(["-n", end, "link", "set", "lo", "up"]);
            ip(["-n", end, "link", "set", "lan", "up"]);
            ip(["-n", end, "address", "add", &v4, "dev", "lan"]);
            ip(["-n", end, "address", "add", &v6, "dev", "lan", "nodad"]);
        }
        for address in addresses {
            let address = address.to_string();
            if address == super::NEIGHBOUR_V6 {
                // A neighbour answers on the cable itself.
                ip(["-n", world, "address", "add", &address, "dev", "lan", "nodad"]);
            } else {
                ip(["-n", world, "address", "add", &address, "dev", "lo"]);
            }
        }
        ip(["-n", lab, "route", "add", "default", "via", super::ROUTER]);
        ip(["-n", lab, "route", "add", "default", "via", super::ROUTER_V6]);
        made.check_closed();
        let settings = made.settings();
        std::fs::create_dir_all(&settings).expect("a folder for settings");
        for (name, text) in [
            ("resolv.conf", resolver),
            ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
            ("hosts", "127.0.0.1 localhost\n"),
        ] {
            std::fs::write(settings.join(name), text).expect("a setting");
        }
        made
    }

    fn settings(&self) -> PathBuf {
        Path::new(SETTINGS).join(&self.lab)
    }

    /// What starts a command in the lab.
    pub fn lab_prefix(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.lab]
    }

    /// Neither namespace has another link than the cable, so nothing can get out.
    #[track_caller]
    fn check_closed(&self) {
        for name in [&self.lab, &self.world] {
            let links = ip(["-n", name, "-o", "link"]);
            let mut names: Vec<_> =
                links.lines().filter_map(|line| line.split([' ', '@', ':']).nth(2)).collect();
            // Some kernels put tunnel devices into every namespace; they are down and lead nowhere.
            names.retain(|link| {
                let line = links.lines().find(|line| line.contains(&format!(" {link}")));
                line.is_some_and(|line| line.contains(",UP") || line.contains("<UP"))
            });
            assert_eq!(names, ["lo", "lan"], "{links}");
        }
    }

    /// Does `make` in a thread that has moved to that end; what it opens stays there.
    pub fn at<T: Send>(&self, end: End, make: impl FnOnce() -> T + Send) -> T {
        let name = match end {
            End::Lab => &self.lab,
            End::World => &self.world,
        };
        let namespace = File::open(Path::new(NAMES).join(name)).expect("the namespace");
        std::thread::scope(|scope| {
            let moved = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("to move there");
                make()
            });
            moved.join().expect("made there")
        })
    }

    pub fn listen(&self, end: End, address: SocketAddr) -> TcpListener {
        let listener = self.at(end, || TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("{end:?} {address}: {error}"));
        listener.set_nonblocking(true).expect("a socket for tokio");
        listener
    }

    pub fn datagrams(&self, end: End, address: SocketAddr) -> UdpSocket {
        let socket = self.at(end, || UdpSocket::bind(address)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket for tokio");
        socket
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(&self.lab);
        remove(&self.world);
    }
}

/// Runs `ip` and gives its output.
#[track_caller]
fn ip<const N: usize>(args: [&str; N]) -> String {
    let out = Command::new("ip").args(args).output();
    let out = out.unwrap_or_else(|error| panic!("`ip` (package iproute2) is missing: {error}"));
    assert!(out.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Whatever of it there is.
fn remove(name: &str) {
    if Path::new(NAMES).join(name).exists() {
        Command::new("ip").args(["netns", "delete", name]).output().ok();
    }
    std::fs::remove_dir_all(Path::new(SETTINGS).join(name)).ok();
}

/// Removes what tests that were killed have left.
fn sweep() {
    for folder in [NAMES, SETTINGS] {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let mut parts = name.strip_prefix(PREFIX).unwrap_or_default().split('-');
            let pid = parts.next().and_then(|pid| pid.parse::<u32>().ok());
            let ours = matches!(name.rsplit('-').next(), Some("lab" | "net"));
            if ours && pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                remove(&name);
            }
        }
    }
}
