//! What was not allowed, and what never is.

use std::fmt::Write as _;

use super::Outing;
use crate::common::Internet;
use crate::common::internet::{INNER, OTHER, SHOP, SHOP_V6};

/// Names with bad addresses: besides those with one, names with good and bad ones, and IPv4 in the
/// clothes of IPv6.
fn inner_names() -> Vec<String> {
    let more = ["mixed", "mixed-six", "mapped", "translated", "unspecified"];
    let names = INNER.iter().map(|(name, _)| *name).chain(more);
    names.map(|name| format!("{name}.example.org")).collect()
}

/// Both protocols to every name with a bad address.
fn try_inner(probes: &mut String, expected: &mut Vec<String>) {
    for name in inner_names() {
        let _ = writeln!(probes, "code {name} https://{name}/\ncode {name} http://{name}/");
        expected.push(format!("{name}: 000 403 [56]"));
        expected.push(format!("{name}: 403 000 [0]"));
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

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_allowed_is_neither_reached_nor_looked_up() {
    let Some(internet) = Internet::start() else { return };
    let mut probes = String::new();
    let mut expected: Vec<String> = Vec::new();
    let mut probe = |line: &str, says: &str| {
        let name = format!("p{}", expected.len());
        let _ = writeln!(probes, "{}", line.replacen(' ', &format!(" {name} "), 1));
        expected.push(format!("{name}: {says}"));
    };
    let (tunnel, plain) = ("000 403 [56]", "403 000 [0]");
    probe("code https://shop.example.com/", "200 200 [0]");

    // Names that look alike lead to the same server.
    let strangers = [
        "sub.shop.example.com",
        "evilshop.example.com",
        "shop.example.com.evil.net",
        "evilexample.org",
        "example.org.evil.net",
        "evil.net",
        "nobody.example.com",
        "hidden-words.evil.net",
    ];
    for name in strangers {
        probe(&format!("code https://{name}/"), tunnel);
        probe(&format!("code http://{name}/"), plain);
    }
    // Addresses in every spelling that a client may know. curl makes an address of some itself.
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
        probe(&format!("line refused_by_all '{address}'"), "no");
    }
    // Ports.
    for port in [22, 25, 80, 8443, 444] {
        probe(&format!("code https://shop.example.com:{port}/"), tunnel);
    }
    for port in [22, 25, 443, 8443, 81] {
        probe(&format!("code http://shop.example.com:{port}/"), plain);
    }
    probe("code -p http://shop.example.com:22/", tunnel);
    // TLS for another name than the tunnel's, for none, and no TLS at all.
    probe("code --connect-to evil.net:443:shop.example.com:443 https://evil.net/", "000 200 [35]");
    probe("line hello -servername evil.net", "alert access denied [0]");
    probe("line hello -servername other.example.net", "alert access denied [0]");
    probe("line hello -noservername", "alert access denied [0]");
    probe("line hello -servername shop.example.com", "reached [0]");
    probe("code -p --connect-to ::shop.example.com:443 http://shop.example.com/", "000 200 [52]");
    // A name that is good only once.
    probe("code https://rebound.example.org/", "200 200 [0]");
    probe("code https://rebound.example.org/", tunnel);
    // A server that sends its visitors inside.
    probe("code -L http://shop.example.com/away", plain);
    probe("code -L https://shop.example.com/elsewhere", "000 403 [56]");
    try_inner(&mut probes, &mut expected);
    for (name, text) in [
        ("direct", "code direct --noproxy '*' https://shop.example.com/"),
        ("direct-address", "code direct-address --noproxy '*' http://8.20.30.10/"),
        ("direct-inner", "code direct-inner --noproxy '*' http://10.1.2.3/"),
    ] {
        probes.push_str(text);
        probes.push('\n');
        let code = if name == "direct" { 6 } else { 7 };
        expected.push(format!("{name}: 000 000 [{code}]"));
    }
    // Datagrams and streams to a name server, and the resolver's own way.
    probes.push_str(
        r#"
        line resolver python3 -c 'import socket
try: print(socket.getaddrinfo("shop.example.com", 443))
except OSError as error: print(type(error).__name__)'
        line udp python3 -c 'import socket
try: print(socket.socket(type=socket.SOCK_DGRAM).sendto(b"x", ("8.20.1.1", 53)))
except OSError as error: print(error.strerror)'
        line tcp python3 -c 'import socket
try: print(socket.create_connection(("8.20.1.1", 53), 3))
except OSError as error: print(error.strerror)'
        line socks curl -s -m 5 -x socks5h://127.0.0.1:4142 https://shop.example.com/
        "#,
    );
    expected.extend(
        [
            "resolver: gaierror [0]",
            "udp: Network is unreachable [0]",
            "tcp: Network is unreachable [0]",
            "socks:  [97]",
        ]
        .map(str::to_owned),
    );
    let tools = r#"
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
    let config = "[egress]\nallow = [\"shop.example.com\", \".example.org\"]\n";
    let expected: Vec<String> = expected
        .into_iter()
        .map(|line| if line.ends_with(": no") { line + " [0]" } else { line })
        .collect();
    let outing = Outing::new(&internet, config, &[], &[], &format!("{tools}\n{probes}")).await;
    outing.assert_lines(&expected);

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
    for name in strangers.into_iter().chain(["other.example.net"]) {
        assert!(!looked_up.contains(name), "{looked_up:?}");
    }
    assert!(looked_up.contains("metadata.example.org"), "{looked_up:?}");
    let egress = &outing.report["egress"];
    assert_eq!(egress["allowed"], 5, "{egress:#}");
    let attempts = outing.attempts();
    let count = |reason: &str| {
        attempts.iter().filter(|attempt| attempt["outcome"]["reason"] == reason).count()
    };
    assert_eq!(count("not_allowed"), 2 * strangers.len() + 1, "{attempts:#?}");
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
    let mut probes = String::from(
        "
        code any https://evil.net/
        code any-plain http://other.example.net/
        code port https://shop.example.com:8443/
        code host-port http://shop.example.com:22/
        code smtp -p http://shop.example.com:25/
        code address https://8.20.30.10/
        code unknown https://nobody.example.com/
        code machine https://localhost.localdomain/
        code machine-short -x http://127.0.0.1:4142 --noproxy '' http://localhost/
        ",
    );
    let mut expected: Vec<String> = [
        "any: 200 200 [0]",
        "any-plain: 200 000 [0]",
        "port: 200 200 [0]",
        "host-port: 403 000 [0]",
        "smtp: 000 403 [56]",
        "address: 000 403 [56]",
        "unknown: 000 502 [56]",
        "machine: 000 502 [56]",
        "machine-short: 400 000 [0]",
    ]
    .map(str::to_owned)
    .into();
    try_inner(&mut probes, &mut expected);
    let config = "[egress]\nopen = true\nports = [8443]\n";
    let outing = Outing::new(&internet, config, &[], &[], &probes).await;
    outing.assert_lines(&expected);
    assert_visits(
        &internet,
        &["evil.net 8.20.30.10:443", "plain 8.20.30.20:80", "shop.example.com 8.20.30.10:8443"],
    );
    assert!(outing.report["remarks"].to_string().contains("egress is open"), "{}", outing.report);
}
