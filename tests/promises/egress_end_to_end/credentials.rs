//! A key that is lent: its host sees it, the sandbox uses it and never holds it.

use super::Outing;
use super::allowed::{CLIENTS, all_worked, stock};
use crate::common::Internet;
use crate::common::workspace::walk;

const SECRET: &str = "lent-4f1c9e7a2b63-secret";

fn probes() -> String {
    let (front, back) = SECRET.split_at(9);
    format!(
        r#"
        {clients}
        echo "authority: $(ls /run/sandbox | grep -c pem) $(grep -c BEGIN "$SSL_CERT_FILE" | wc -l)"
        curl -sS -m 10 -v -D seen/headers.txt https://key.example.com/echo > seen/echo.txt 2> seen/verbose.txt
        line python-echo python3 -c 'import urllib.request as r; print(r.urlopen(r.Request("https://key.example.com/echo", headers={{"Authorization": "Bearer mine"}}), timeout=10).read().decode().count("[api key]"))'
        # The key does not follow to where its host sends one, nor to other names, ports and protocols.
        line elsewhere curl -sS -m 10 -L --cacert ca.pem -o seen/elsewhere.txt https://other.example.net/echo
        for name in CURL_CA_BUNDLE; do unset $name; done
        cat "$SSL_CERT_FILE" ca.pem > both.pem
        line redirected curl -sS -m 10 -L --location-trusted --cacert both.pem -o seen/redirected.txt https://key.example.com/elsewhere
        code plain http://key.example.com/echo
        code port https://key.example.com:8443/echo
        code fronted --cacert both.pem -H 'Host: other.example.net' https://key.example.com/echo
        code fronted-tls --cacert both.pem --connect-to other.example.net:443:key.example.com:443 https://other.example.net/echo
        code other-host-key --cacert both.pem -H 'Host: key.example.com' https://other.example.net/echo
        code ranged --cacert both.pem -r 0-20 https://key.example.com/echo
        # Large ones.
        line big sh -c 'curl -sS -m 60 --cacert both.pem https://key.example.com/big | wc -c'
        line up sh -c 'head -c 20000000 /dev/zero | curl -sS -m 60 --cacert both.pem -o /dev/null -w "%{{http_code}}" --data-binary @- https://key.example.com/'
        # Who does not trust the authority sends nothing.
        code untrusting https://key.example.com/echo
        # Its authority is for that host, and without a key that could sign more.
        echo "keys: $(cat /run/sandbox/*.pem "$SSL_CERT_FILE" | grep -c 'PRIVATE KEY')"
        openssl x509 -in /run/sandbox/authority.pem -noout -ext nameConstraints | grep DNS
        # Nowhere: environment, files, memory of other processes.
        {{ env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\0' '\n'; }} > seen/environment.txt 2>/dev/null
        found=$(printf '%s%s' {front} {back} | grep -rlaF -f /dev/stdin --exclude-dir=proc --exclude-dir=sys / 2>/dev/null | wc -l)
        echo "found: $found"
        "#,
        clients = CLIENTS.replace("HOST", "key.example.com")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_key_reaches_its_host_and_nobody_else() {
    let Some(internet) = Internet::start() else { return };
    stock(&internet);
    let config = "
        [egress]
        allow = [\"other.example.net\"]
        [[credential]]
        host = \"key.example.com\"
        header = \"Authorization\"
        value_env = \"LENT\"
        prefix = \"Bearer \"
    ";
    let files = [("seen/x", "")];
    let outing = Outing::new(&internet, config, &[("LENT", SECRET)], &files, &probes()).await;
    let mut expected = all_worked("key.example.com");
    expected.extend(
        [
            "authority: 1 1",
            "python-echo: 1 [0]",
            "elsewhere:  [0]",
            "redirected:  [0]",
            "plain: 403 000 [0]",
            "port: 000 403 [56]",
            "fronted: 400 200 [0]",
            "fronted-tls: 000 200 [35]",
            "other-host-key: 200 200 [0]",
            "ranged: 200 200 [0]",
            "big: 52428800 [0]",
            "up: 200 [0]",
            "untrusting: 000 200 [60]",
            "keys: 0",
            "      DNS:key.example.com",
            "found: 0",
        ]
        .map(str::to_owned),
    );
    outing.assert_lines(&expected);

    // The host got it in every request, each time once and as the only one.
    let asked = internet.asked();
    let of_host: Vec<_> = asked
        .iter()
        .filter(|asked| asked.host() == "key.example.com" && asked.to.port() == 443 && asked.tls)
        .collect();
    let (lent, others): (Vec<_>, Vec<_>) =
        of_host.into_iter().partition(|asked| !asked.header("authorization").is_empty());
    assert!(lent.len() >= 12, "{lent:?}");
    for asked in &lent {
        assert_eq!(asked.header("authorization"), format!("Bearer {SECRET}"));
        assert_eq!(asked.header("range"), "");
    }
    let agents: String = lent.iter().map(|asked| asked.header("user-agent")).collect();
    for agent in ["curl/", "Python-urllib", "git/", "pip/", "npm/"] {
        assert!(agents.contains(agent), "{agents}");
    }
    // To the other host, under the name of the first.
    assert_eq!(others.len(), 1, "{others:?}");
    let strangers: Vec<_> =
        asked.iter().filter(|asked| asked.host() == "other.example.net").collect();
    assert_eq!(strangers.len(), 2, "{strangers:?}");
    for visit in internet.visits() {
        let holds = String::from_utf8_lossy(&visit.bytes).contains(SECRET);
        let asked = !visit.bytes.is_empty();
        assert_eq!(holds, asked && visit.sni.as_deref() == Some("key.example.com"), "{visit:?}");
    }

    assert_kept_out(&outing);
}

/// The sandbox saw what stands in the key's place, and nothing of the key is in what anyone wrote
/// down.
fn assert_kept_out(outing: &Outing) {
    assert!(outing.workspace.read("seen/echo.txt").contains("authorization: Bearer [api key]"));
    assert!(outing.workspace.read("seen/headers.txt").contains("x-echo: Bearer [api key]"));
    let mut files = Vec::new();
    for folder in [outing.workspace.path(), &outing.product.folder("state")] {
        walk(folder, &mut |path| files.push(path.to_owned()));
    }
    assert!(files.iter().any(|path| path.ends_with("seen/environment.txt")));
    for path in files.into_iter().filter(|path| path.is_file()) {
        let content = std::fs::read(&path).expect("readable");
        let holds = content.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes());
        assert!(!holds, "{}", path.display());
    }
    assert!(!outing.report.to_string().contains(SECRET));
    assert!(outing.workspace.read("seen/verbose.txt").contains("CN=sandbox-mcp, for one run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_there_opens_nothing() {
    let Some(internet) = Internet::start() else { return };
    let config = "
        [egress]
        allow = [\"shop.example.com\"]
        [[credential]]
        host = \"key.example.com\"
        header = \"Authorization\"
        value_env = \"LENT\"
    ";
    let probes = "
        code lender https://key.example.com/
        code allowed https://shop.example.com/
        [ $(grep -c BEGIN \"$SSL_CERT_FILE\") -gt 1 ] && echo public authorities
        [ ! -e /run/sandbox/authority.pem ] && echo none of ours
    ";
    let outing = Outing::new(&internet, config, &[], &[], probes).await;
    outing.assert_lines(&[
        "lender: 000 403 [56]",
        "allowed: 200 200 [0]",
        "public authorities",
        "none of ours",
    ]);
    let remarks = outing.report["remarks"].to_string();
    assert!(remarks.contains("LENT") && remarks.contains("is not reached"), "{remarks}");
    assert_eq!(internet.visits().len(), 1);
}
