//! An internet of our own, in which nothing real can be reached and everything is seen: a network
//! namespace with public and private addresses, a name server, web servers and an authority. The
//! product runs in a second namespace, the lab, whose only cable ends there.
//!
//! Making namespaces takes root and `ip`. Root must have both: then there is no way around these
//! tests. Others are told that they did not run.

pub mod names;
pub mod namespaces;
pub mod sites;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio_util::task::AbortOnDropHandle;

use super::model::Options;
use super::{Model, Product, Script};
use names::Names;
use namespaces::{End, Namespaces};
use sites::{Asked, Sites, Visit};

/// The lab's own addresses, and the world's at the other end of the cable.
pub const LAB: &str = "8.20.1.2";
pub const LAB_V6: &str = "2600:20:1::2";
pub const ROUTER: &str = "8.20.1.1";
pub const ROUTER_V6: &str = "2600:20:1::1";

/// Where the web servers are, the first for most names, the second for the rest.
pub const SHOP: &str = "8.20.30.10";
pub const OTHER: &str = "8.20.30.20";
pub const SHOP_V6: &str = "2600:20:2::10";
/// Global, but on the lab's own net.
pub const NEIGHBOUR_V6: &str = "2600:20:1::9";

/// What no sandbox may reach, each with the first part of its name below `example.org`. There is
/// a canary at every one of them.
pub const INNER: &[(&str, &str)] = &[
    ("inner-10", "10.1.2.3"),
    ("inner-172", "172.16.9.9"),
    ("inner-192", "192.168.7.7"),
    ("metadata", "169.254.169.254"),
    ("metadata-alibaba", "100.100.100.200"),
    ("metadata-azure", "168.63.129.16"),
    ("unique-local", "fd00:20::7"),
    ("neighbour", NEIGHBOUR_V6),
    ("loopback", "127.0.0.1"),
    ("loopback-far", "127.7.7.7"),
    ("loopback-six", "::1"),
    ("own", LAB),
    ("own-six", LAB_V6),
];

/// Where every server listens: TLS on those that end with 443, plain HTTP on the others.
const PORTS: [u16; 5] = [80, 443, 8443, 22, 25];

/// Connections of the check at the start.
const CHECKS: usize = (INNER.len() + 3) * PORTS.len();

/// Those that are the lab itself.
fn is_labs(address: IpAddr) -> bool {
    let text = address.to_string();
    address.is_loopback() || text == LAB || text == LAB_V6
}

pub struct Internet {
    sites: Arc<Sites>,
    names: Names,
    authority: String,
    folder: TempDir,
    _servers: Vec<AbortOnDropHandle<()>>,
    namespaces: Namespaces,
}

impl Internet {
    /// None, and a word to the person, for a tester who is not root.
    pub fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
            {
                eprintln!("NOT RUN: this test makes network namespaces, which takes root");
            }
            return None;
        }
        let inner = INNER.iter().map(|(_, address)| *address);
        let all: Vec<IpAddr> = [SHOP, OTHER, SHOP_V6].into_iter().chain(inner).map(ip).collect();
        let far: Vec<IpAddr> = all.iter().copied().filter(|address| !is_labs(*address)).collect();
        let namespaces =
            Namespaces::new(&far, &format!("nameserver {ROUTER}\nsearch example.org\n"));
        let zone = zone();
        let (authority, tls) = certify(zone.iter().map(|(name, _)| name.clone()).collect());
        let sites = Arc::new(Sites::default());
        let mut servers = Vec::new();
        for address in all {
            let end = if is_labs(address) { End::Lab } else { End::World };
            for port in PORTS {
                let tls = [443, 8443].contains(&port).then(|| tls.clone());
                let listener = namespaces.listen(end, SocketAddr::new(address, port));
                servers.push(sites.serve(listener, tls));
            }
        }
        let socket = namespaces.datagrams(End::World, SocketAddr::new(ip(ROUTER), 53));
        let names = Names::serve(socket, zone.into_iter().collect());
        let folder = tempfile::Builder::new().prefix("si-").tempdir_in("/tmp").expect("a folder");
        std::fs::write(folder.path().join("authority.pem"), &authority).expect("a file");
        let internet = Self { sites, names, authority, folder, _servers: servers, namespaces };
        internet.check_canaries();
        Some(internet)
    }

    /// From the lab itself everything can be reached: what is not reached from a sandbox there is
    /// refused, and not only missing.
    fn check_canaries(&self) {
        self.namespaces.at(End::Lab, || {
            for address in INNER.iter().map(|(_, address)| *address).chain([SHOP, OTHER, SHOP_V6]) {
                for port in PORTS {
                    let address = SocketAddr::new(ip(address), port);
                    let reached = TcpStream::connect_timeout(&address, Duration::from_secs(5));
                    reached.unwrap_or_else(|error| panic!("{address}: {error}"));
                }
            }
        });
    }

    /// A model server on the lab's loopback.
    pub async fn model(&self, script: Script) -> Model {
        let listener = self.namespaces.listen(End::Lab, SocketAddr::new(ip("127.0.0.1"), 0));
        Model::with(Options { listener: Some(listener), ..Options::default() }, [("", script)])
            .await
    }

    /// The product in the lab, which trusts the internet's authority as one of the public ones.
    pub async fn product(&self, model: &Model) -> Product {
        let authority = self.folder.path().join("authority.pem");
        Product::with_model(model)
            .await
            .inside(&self.namespaces.lab_prefix())
            .env("SSL_CERT_FILE", authority.to_str().expect("utf-8"))
            .without("SSL_CERT_DIR")
    }

    /// The authority's certificate.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// All servers have this file.
    pub fn publish(&self, path: &str, content: impl Into<Bytes>) {
        self.sites.publish(path, content);
    }

    /// Connections so far, without those of the check at the start.
    pub fn visits(&self) -> Vec<Visit> {
        self.sites.visits().into_iter().skip(CHECKS).collect()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.sites.asked()
    }

    /// Names that were looked up so far.
    pub fn looked_up(&self) -> BTreeSet<String> {
        self.names.asked().into_iter().collect()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Every name there is, with its answers.
fn zone() -> Vec<(String, Vec<Vec<IpAddr>>)> {
    let mut zone: Vec<(String, Vec<Vec<IpAddr>>)> = Vec::new();
    let mut add = |name: &str, answers: &[&[&str]]| {
        let answers = answers.iter().map(|one| one.iter().map(|text| ip(text)).collect());
        zone.push((name.to_owned(), answers.collect()));
    };
    for name in [
        "shop.example.com",
        "sub.shop.example.com",
        "evilshop.example.com",
        "shop.example.com.evil.net",
        "example.org",
        "www.example.org",
        "a.b.example.org",
        "evilexample.org",
        "example.org.evil.net",
        "evil.net",
    ] {
        add(name, &[&[SHOP]]);
    }
    for name in ["other.example.net", "key.example.com"] {
        add(name, &[&[OTHER]]);
    }
    add("six.example.org", &[&[SHOP_V6]]);
    for (name, address) in INNER {
        add(&format!("{name}.example.org"), &[&[address]]);
    }
    add("mixed.example.org", &[&[SHOP, "10.1.2.3"]]);
    add("mixed-six.example.org", &[&[SHOP, "fd00:20::7"]]);
    add("mapped.example.org", &[&["::ffff:10.1.2.3"]]);
    add("translated.example.org", &[&["64:ff9b::a01:203"]]);
    add("unspecified.example.org", &[&["0.0.0.0"]]);
    // Good when it is first asked for, and bad from then on.
    add("rebound.example.org", &[&[SHOP], &["10.1.2.3"]]);
    zone
}

/// An authority, and what a server needs to be all of `names`.
fn certify(names: Vec<String>) -> (String, Arc<ServerConfig>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "the internet's authority");
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(names).expect("names");
    params.use_authority_key_identifier_extension = true;
    let leaf = params.signed_by(&key, &authority).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a server");
    (authority.pem(), Arc::new(tls))
}
