//! What was not allowed, and what never is.

use super::{Outing, Probes};
use crate::common::Internet;
use crate::common::internet::{INNER, OTHER, SHOP, SHOP_V6};

/// What curl is told of a tunnel, and of plain HTTP, that is refused.
const TUNNEL: &str = "000 403 [56]";
const PLAIN: &str = "403 000 [0]";

/// Names that look like those that are allowed, and lead to the same server; and strangers.
const STRANGERS: [&str; 8] = [
    "sub.shop.example.com",
    "evilshop.example.com",
    "shop.example.com.evil.net",
    "evilexample.org",
    "example.org.evil.net",
    "evil.net",
    "nobody.example.com",
    "hidden-words.evil.net",
];

/// Names with bad addresses: besides those with one, names with good and bad ones, and IPv4 in the
/// clothes of IPv6.
fn inner_names() -> Vec<String> {
    let more = ["mixed", "mixed-six", "mapped", "translated", "unspecified"];
    let names = INNER.iter().map(|(name, _)| *name).chain(more);
    names.map(|name| format!("{name}.example.org")).collect()
}

/// Both protocols to every name with a bad address.
fn try_inner(probes: &mut Probes) {
    for name in inner_names() {
        probes.add(&format!("code https://{name}/"), TUNNEL);
        probes.add(&format!("code http://{name}/"), PLAIN);
    }
}

/// Only servers at public addresses were seen, and nobody but `expected` (in any order).
#[track_caller]
fn assert_visits(internet: &Internet, expected: &[&str]) {
    let visits = internet.visits();
    let mut seen: Vec<_> = visits
        .iter()
        .map(|visit| {
            let name = visit.sni.clone().unwrap_or_else(|| "plain".into());
            format!("{name} {}", visit.to)
        })
        .collect();
    seen.sort();
    let mut expected: Vec<_> = expected.iter().map(|&visit| visit.to_owned()).collect();
    expected.sort();
    assert_eq!(seen, expected, "{visits:#?}");
}

const TOOLS: &str = r#"
hello() {
    echo | timeout 10 openssl s_client -proxy 127.0.0.1:4142 -connect shop.example.com:443 -CAfile ca.pem -verify_return_error "$@" 2>&1 | grep -o -i -m 1 'alert access denied\|Verify return code: 0' | sed 's/Verify.*/reached/'
}
refused_by_all() {
    for url in "https://$1/" "http://$1/"; do
        curl -sS -k -m 5 "$url" | grep hello && return
    done
    for way in "CONNECT $1:443" "CONNECT $1:80" "GET http://$1/"; do
        printf '%s HTTP/1.1\r\nHost: %s\r\n\r\n' "$way" "$1" | socat -t 5 - TCP:127.0.0.1:4142 | head -1 | grep -q ' 40[03] ' || { echo "$way"; return; }
    done
    echo no
}
"#;

/// Addresses of allowed servers in every spelling that a client may know. curl makes a plain
/// address of some itself; the proxy is also given them as they are.
fn try_addresses(probes: &mut Probes) {
    let [a, b, c, d] = SHOP.parse::<std::net::Ipv4Addr>().expect("an address").octets();
    let number = u32::from_be_bytes([a, b, c, d]);
    for address in [
        SHOP.to_owned(),
        OTHER.to_owned(),
        format!("[{SHOP_V6}]"),
        format!("[::ffff:{SHOP}]"),
        format!("{number}"),
        format!("{number:#x}"),
        format!("{a:#o}.{b}.{c}.{d}"),
        format!("{a}.{b}.{}", u32::from(c) * 256 + u32::from(d)),
        format!("{SHOP}."),
    ] {
        probes.add(&format!("line refused_by_all '{address}'"), "no [0]");
    }
}

fn try_ports(probes: &mut Probes) {
    for port in [22, 25, 80, 8443, 444] {
        probes.add(&format!("code https://shop.example.com:{port}/"), TUNNEL);
    }
    for port in [22, 25, 443, 8443, 81] {
        probes.add(&format!("code http://shop.example.com:{port}/"), PLAIN);
    }
    probes.add("code -p http://shop.example.com:22/", TUNNEL);
}

/// TLS for another name than the tunnel's, for none, and no TLS at all.
fn try_tls(probes: &mut Probes) {
    let to_shop = "--connect-to ::shop.example.com:443";
    probes.add(&format!("code {to_shop} https://evil.net/"), "000 200 [35]");
    probes.add("line hello -servername evil.net", "alert access denied [0]");
    probes.add("line hello -servername other.example.net", "alert access denied [0]");
    probes.add("line hello -noservername", "alert access denied [0]");
    probes.add("line hello -servername shop.example.com", "reached [0]");
    probes.add(&format!("code -p {to_shop} http://shop.example.com/"), "000 200 [52]");
}

/// Without the proxy there is no network: neither streams nor datagrams nor a resolver.
fn try_without_the_proxy(probes: &mut Probes) {
    for (url, code) in
        [("https://shop.example.com/", 6), ("http://8.20.30.10/", 7), ("http://10.1.2.3/", 7)]
    {
        probes.add(&format!("code --noproxy '*' {url}"), &format!("000 000 [{code}]"));
    }
    for (attempt, says) in [
        ("socket.getaddrinfo(\"shop.example.com\", 443)", "gaierror"),
        ("socket.socket(type=socket.SOCK_DGRAM).sendto(b\"x\", (\"8.20.1.1\", 53))", "OSError"),
        ("socket.create_connection((\"8.20.1.1\", 53), 3)", "OSError"),
    ] {
        let python = format!(
            "line python3 -c 'import socket\ntry: print({attempt})\nexcept OSError as error: print(type(error).__name__)'"
        );
        probes.add(&python, &format!("{says} [0]"));
    }
    probes.add("line curl -s -m 5 -x socks5h://127.0.0.1:4142 https://shop.example.com/", " [97]");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_allowed_is_neither_reached_nor_looked_up() {
    let Some(internet) = Internet::start() else { return };
    let mut probes = Probes { script: TOOLS.into(), ..Probes::default() };
    probes.add("code https://shop.example.com/", "200 200 [0]");
    for name in STRANGERS {
        probes.add(&format!("code https://{name}/"), TUNNEL);
        probes.add(&format!("code http://{name}/"), PLAIN);
    }
    try_addresses(&mut probes);
    try_ports(&mut probes);
    try_tls(&mut probes);
    // A name that is good only once.
    probes.add("code https://rebound.example.org/", "200 200 [0]");
    probes.add("code https://rebound.example.org/", TUNNEL);
    // A server that sends its visitors inside, and elsewhere.
    probes.add("code -L http://shop.example.com/away", PLAIN);
    probes.add("code -L https://shop.example.com/elsewhere", TUNNEL);
    try_inner(&mut probes);
    try_without_the_proxy(&mut probes);
    let config = "[egress]\nallow = [\"shop.example.com\", \".example.org\"]\n";
    let outing = Outing::new(&internet, config, &[], &[], &probes.script).await;
    outing.assert_lines(&probes.expected);

    assert_visits(
        &internet,
        &[
            "shop.example.com 8.20.30.10:443",
            "shop.example.com 8.20.30.10:443",
            "rebound.example.org 8.20.30.10:443",
            "plain 8.20.30.10:80",
            "shop.example.com 8.20.30.10:443",
        ],
    );
    let looked_up = internet.looked_up();
    for name in STRANGERS.into_iter().chain(["other.example.net"]) {
        assert!(!looked_up.contains(name), "{looked_up:?}");
    }
    assert!(looked_up.contains("metadata.example.org"), "{looked_up:?}");
    let egress = &outing.report["egress"];
    assert_eq!(egress["allowed"], 5, "{egress:#}");
    let attempts = outing.attempts();
    let count = |reason: &str| {
        attempts.iter().filter(|attempt| attempt["outcome"]["reason"] == reason).count()
    };
    assert_eq!(count("not_allowed"), 2 * STRANGERS.len() + 1, "{attempts:#?}");
    assert_eq!(count("sni_mismatch"), 3);
    assert_eq!((count("no_sni"), count("not_tls")), (1, 1));
    assert_eq!(count("own_address"), 4);
    assert_eq!(count("private_address"), 2 * inner_names().len() - 4 + 2);
    assert_eq!(count("port"), 11);
    assert!(count("ip_literal") >= 9, "{attempts:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_means_every_public_name_and_port_that_is_listed_and_nothing_private() {
    let Some(internet) = Internet::start() else { return };
    let mut probes = Probes::default();
    probes.add("code https://evil.net/", "200 200 [0]");
    probes.add("code http://other.example.net/", "200 000 [0]");
    probes.add("code https://shop.example.com:8443/", "200 200 [0]");
    probes.add("code http://shop.example.com:22/", PLAIN);
    probes.add("code -p http://shop.example.com:25/", TUNNEL);
    probes.add("code https://8.20.30.10/", TUNNEL);
    probes.add("code https://nobody.example.com/", "000 502 [56]");
    probes.add("code https://localhost.localdomain/", "000 502 [56]");
    probes.add("code --noproxy '' http://localhost/", "400 000 [0]");
    try_inner(&mut probes);
    let config = "[egress]\nopen = true\nports = [8443]\n";
    let outing = Outing::new(&internet, config, &[], &[], &probes.script).await;
    outing.assert_lines(&probes.expected);
    assert_visits(
        &internet,
        &["evil.net 8.20.30.10:443", "plain 8.20.30.20:80", "shop.example.com 8.20.30.10:8443"],
    );
    let looked_up = internet.looked_up();
    assert!(looked_up.contains("nobody.example.com"), "{looked_up:?}");
    let searched = looked_up.iter().any(|name| name.ends_with("example.com.example.org"));
    assert!(!searched, "no search list of this machine is tried: {looked_up:?}");
    assert!(outing.report["remarks"].to_string().contains("egress is open"), "{}", outing.report);
}
