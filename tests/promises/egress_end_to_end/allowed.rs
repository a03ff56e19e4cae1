//! The programs that an agent uses reach what is allowed, by the variables that are set for them.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::Outing;
use crate::common::Internet;
use crate::common::internet::{SHOP, SHOP_V6};

/// What a shell does on this machine, in a folder that goes away.
fn make(folder: &Path, script: &str) {
    let mut shell = Command::new("sh");
    for (key, _) in std::env::vars().filter(|(key, _)| key.starts_with("GIT_")) {
        shell.env_remove(key);
    }
    let out = shell.args(["-ec", script]).current_dir(folder).env("HOME", folder).output();
    let out = out.expect("a shell");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A repository, a Python package, a JavaScript package and a Debian archive on every server.
pub fn stock(internet: &Internet) {
    let folder = tempfile::tempdir().expect("a folder");
    make(
        folder.path(),
        r#"
        git init -q work
        echo cloned > work/a.txt
        git -C work add a.txt
        git -C work -c user.name=a -c user.email=a@example.com commit -q -m one
        git clone -q --bare work site/repo.git
        git -C site/repo.git update-server-info

        mkdir -p site/simple/tiny site/npm/tiny site/apt package
        python3 -c '
import zipfile
with zipfile.ZipFile("site/simple/tiny/tiny-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny.py", "")
    wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("tiny-1.0.dist-info/RECORD", "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\ntiny-1.0.dist-info/RECORD,,\n")
'
        echo '{"name": "tiny", "version": "1.0.0"}' > package/package.json
        tar czf site/npm/tiny/tiny-1.0.0.tgz package
        printf 'Package: tiny\nVersion: 1.0\nArchitecture: all\nFilename: ./tiny.deb\nSize: 1\nMD5sum: 68b329da9893e34099c7d8ad5cb9c940\n\n' > site/apt/Packages
        printf 'MD5Sum:\n %s %s Packages\n' "$(md5sum < site/apt/Packages | cut -d" " -f1)" "$(wc -c < site/apt/Packages)" > site/apt/Release
        "#,
    );
    let site = folder.path().join("site");
    crate::common::workspace::walk(&site, &mut |path| {
        if path.is_file() {
            let name = path.strip_prefix(&site).expect("below").display();
            internet.publish(&format!("/{name}"), std::fs::read(path).expect("a file"));
        }
    });
    internet.publish(
        "/simple/tiny/",
        "<!DOCTYPE html><a href=\"tiny-1.0-py3-none-any.whl\">tiny-1.0-py3-none-any.whl</a>",
    );
    // The package's own address is that of whoever serves it.
    for host in ["shop.example.com", "key.example.com"] {
        let package = json!({
            "name": "tiny",
            "dist-tags": {"latest": "1.0.0"},
            "versions": {"1.0.0": {"name": "tiny", "version": "1.0.0", "dist": {
                "tarball": format!("https://{host}/npm/tiny/tiny-1.0.0.tgz")}}},
        });
        internet.publish(&format!("/npm-{host}/tiny"), package.to_string());
    }
}

/// What every client is asked to do with `HOST`, by https.
pub const CLIENTS: &str = r#"
line curl curl -sS -m 10 https://HOST/
line python python3 -c 'import urllib.request as r; print(r.urlopen("https://HOST/", timeout=10).read().decode().strip())'
line git git clone -q https://HOST/repo.git /tmp/clone
line cloned cat /tmp/clone/a.txt
line pip pip download -q --no-cache-dir --disable-pip-version-check --no-deps -d /tmp/pip --index-url https://HOST/simple/ tiny
line downloaded ls /tmp/pip
line npm-view npm view --registry https://HOST/npm-HOST/ tiny version
mkdir /tmp/project && cd /tmp/project && echo '{}' > package.json
line npm-install npm install --silent --no-audit --no-fund --registry https://HOST/npm-HOST/ tiny
line installed ls node_modules
cd /workspace
line node node -e '
    const fail = error => { console.log(error.code || error.message); process.exit(1) };
    const proxy = new URL(process.env.HTTPS_PROXY);
    require("http").request({host: proxy.hostname, port: proxy.port, method: "CONNECT", path: "HOST:443", headers: {host: "HOST:443"}})
        .on("connect", (answer, socket) => require("https").get("https://HOST/", {socket, agent: false}, answer => answer.on("data", data => console.log(data.toString().trim()))).on("error", fail))
        .on("error", fail).end()'
"#;

pub fn all_worked(host: &str) -> Vec<String> {
    [
        format!("curl: hello from {host} [0]"),
        format!("python: hello from {host} [0]"),
        "git:  [0]".into(),
        "cloned: cloned [0]".into(),
        "pip:  [0]".into(),
        "downloaded: tiny-1.0-py3-none-any.whl [0]".into(),
        "npm-view: 1.0.0 [0]".into(),
        "npm-install:  [0]".into(),
        "installed: tiny [0]".into(),
        format!("node: hello from {host} [0]"),
    ]
    .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn usual_programs_reach_what_is_allowed_and_it_is_counted() {
    let Some(internet) = Internet::start() else { return };
    stock(&internet);
    // The internet's authority is not in the image, so its users name it themselves here.
    let probes = format!(
        r#"
        echo "authority: ${{SSL_CERT_FILE-none}} $(ls /run/sandbox | grep -c pem)"
        for name in CURL_CA_BUNDLE SSL_CERT_FILE GIT_SSL_CAINFO PIP_CERT NODE_EXTRA_CA_CERTS; do
            export $name=/workspace/ca.pem
        done
        {}
        line plain curl -sS -m 10 http://shop.example.com/
        line python-plain python3 -c 'import urllib.request as r; print(r.urlopen("http://example.org/", timeout=10).read().decode().strip())'
        echo 'deb [trusted=yes] http://www.example.org/apt ./' > /tmp/sources.list
        mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial
        apt="-o Dir::Etc::SourceList=/tmp/sources.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State=/tmp/apt -o Dir::Cache=/tmp/apt/cache"
        line apt apt-get -qq $apt update
        line archive sh -c "apt-cache $apt madison tiny | tr -s ' '"
        code suffix https://example.org/
        code below https://www.example.org/
        code far-below https://a.b.example.org/
        code six https://six.example.org/
        code post -d some=words https://shop.example.com/echo
        code plain-post -d some=words http://shop.example.com/echo
        "#,
        CLIENTS.replace("HOST", "shop.example.com")
    );
    let config = "[egress]\nallow = [\"shop.example.com\", \".example.org\"]\n";
    let outing = Outing::new(&internet, config, &[], &[], &probes).await;
    let mut expected = all_worked("shop.example.com");
    expected.extend(
        [
            "authority: none 0",
            "plain: hello from shop.example.com [0]",
            "python-plain: hello from example.org [0]",
            "apt:  [0]",
            "archive:  tiny | 1.0 | http://www.example.org/apt ./ Packages [0]",
            "suffix: 200 200 [0]",
            "below: 200 200 [0]",
            "far-below: 200 200 [0]",
            "six: 200 200 [0]",
            "post: 200 200 [0]",
            "plain-post: 200 000 [0]",
        ]
        .map(str::to_owned),
    );
    outing.assert_lines(&expected);

    let egress = &outing.report["egress"];
    let visits = internet.visits();
    assert_eq!(egress["refused"], 0, "{egress}");
    assert_eq!(egress["allowed"], visits.len(), "{egress}");
    let tls = visits.iter().filter(|visit| visit.sni.is_some()).count();
    let attempts = outing.attempts();
    assert_eq!(attempts.len(), visits.len());
    let connects = attempts.iter().filter(|attempt| attempt["kind"] == "connect").count();
    assert_eq!(connects, tls, "{attempts:#?}");
    let counted = |host: &str, port: u16| {
        let same = |attempt: &&serde_json::Value| {
            attempt["target"] == host
                && attempt["port"] == port
                && attempt["outcome"]["result"] == "allowed"
        };
        attempts.iter().filter(same).count()
    };
    for (host, port) in [
        ("shop.example.com", 443),
        ("shop.example.com", 80),
        ("example.org", 443),
        ("a.b.example.org", 443),
        ("six.example.org", 443),
    ] {
        assert!(counted(host, port) >= 1, "{host}:{port} {attempts:#?}");
    }
    let sent: usize = visits.iter().map(|visit| visit.bytes.len()).sum();
    assert!(egress["bytes_sent"].as_u64().expect("a number") >= sent as u64, "{egress}");
    let bodies: Vec<_> = internet.asked().into_iter().filter(|a| a.method == "POST").collect();
    assert_eq!(bodies.len(), 2);
    assert!(bodies.iter().all(|asked| asked.body == "some=words"), "{bodies:?}");
    for address in [SHOP, SHOP_V6] {
        assert!(visits.iter().any(|visit| visit.to.ip().to_string() == address), "{address}");
    }
    let agents: String = internet.asked().iter().map(|asked| asked.header("user-agent")).collect();
    for agent in ["curl/", "Python-urllib", "git/", "pip/", "npm/", "APT-HTTP"] {
        assert!(agents.contains(agent), "{agents}");
    }
}
