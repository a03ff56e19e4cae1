//! `build --refresh` makes the image anew, runs use the newest, and older ones go unless they are
//! in use.
//!
//! On a base whose tools do nothing, so that a build takes seconds.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{Finished, Model, Product, Script, Workspace, engine};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Puts tools into the base that the build's steps are content with. What is "installed" is chance,
/// so that a step from the cache can be told from one that was carried out.
const TOOLS: &str = r"cd /usr/local/bin; \
    printf '#!/bin/sh\nhead -c 16 /dev/urandom > /opt/chance\n' > apt-get; \
    printf '#!/bin/sh\necho sha512-x\n' > jq; printf '#!/bin/sh\necho x\n' > base64; cp jq openssl; \
    printf '#!/bin/sh\n' > update-ca-certificates; \
    printf '#!/bin/sh\nmkdir -p package/bin; cp /usr/local/bin/jq package/bin/opencode; tar -czf x.tgz package\n' > npm; \
    chmod 0755 apt-get jq base64 openssl update-ca-certificates npm";

/// A base of one test, and all that was built on it.
struct Base {
    name: String,
    other: String,
    containers: Vec<String>,
}

impl Base {
    fn new(image: &str) -> Self {
        let name = format!("sandbox-mcp-test-base:p{}", std::process::id());
        let other = format!("sandbox-mcp-test-other:p{}", std::process::id());
        let base = Self { name, other, containers: shielded() };
        base.make(image, TOOLS);
        base
    }

    /// The base anew, by a command in `image`.
    fn make(&self, image: &str, command: &str) {
        let label = format!("LABEL {}", mark());
        dockerfile(&self.name, &format!("FROM {image}\n{label}\nUSER root\nRUN {command}\n"));
    }

    fn config(&self) -> String {
        let name = &self.name;
        format!("[image]\nbase = \"{name}\"\nprofile = \"lean\"\nmax_age = 0\n")
    }

    fn hold(&mut self, image: &str) -> String {
        let container = create(image);
        self.containers.push(container.clone());
        container
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        for container in &self.containers {
            engine::try_docker(["rm", "-f", container]).ok();
        }
        for image in [&self.other, &self.name] {
            engine::try_docker(["rmi", image]).ok();
        }
        // The steps of the build that failed.
        let ours = format!("label={}", mark());
        engine::try_docker(["image", "prune", "-f", "--filter", &ours]).ok();
    }
}

/// The label of everything that this process builds on a base of its own.
fn mark() -> String {
    format!("sandbox-mcp-test=p{}", std::process::id())
}

/// Builds an image by a Dockerfile alone.
#[track_caller]
fn dockerfile(tag: &str, text: &str) {
    fed(&["build", "-q", "-t", tag, "-"], text.as_bytes());
}

#[track_caller]
fn fed(args: &[&str], input: &[u8]) {
    let mut command = Command::new("docker");
    if let Some(host) = engine::host() {
        command.env("DOCKER_HOST", host);
    }
    let mut child =
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("docker");
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "docker {args:?}");
}

fn create(image: &str) -> String {
    engine::docker(["create", image, "true"]).trim().to_owned()
}

/// Containers that keep the images of older versions for other checkouts on this machine: these say
/// for no settings, so a build on any base takes their place.
fn shielded() -> Vec<String> {
    let listed =
        engine::docker(["images", "-q", "--no-trunc", "--filter", "label=sandbox-mcp.image"]);
    let old = listed.lines().filter(|id| setting(id).is_null());
    old.map(create).collect()
}

fn setting(image: &str) -> Value {
    engine::inspect(image)["Config"]["Labels"]["sandbox-mcp.settings"].take()
}

fn is_there(image: &str) -> bool {
    engine::try_docker(["image", "inspect", image]).is_ok()
}

async fn build<const N: usize>(product: &Product, args: [&str; N]) -> (String, Finished) {
    let told = product.call(["build"].into_iter().chain(args)).await;
    told.assert_code(0);
    (told.stdout.trim().to_owned(), told)
}

fn layers(image: &str) -> Value {
    engine::inspect(image)["RootFS"]["Layers"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_is_used_and_older_ones_go_unless_they_are_in_use() {
    let plain = Product::new().await;
    let _alone = engine::lock(engine::IMAGES);
    let (image, _) = build(&plain, ["--keep-old"]).await;
    let mut base = Base::new(&image);
    let product = Product::without_engine().config(&base.config());

    let (first, _) = build(&product, ["--keep-old"]).await;
    let tag = first.strip_prefix("sandbox-mcp:").expect("ours");
    let (hash, stamp) = tag.split_once('-').expect("when it was built");
    assert_eq!((hash.len(), stamp.len(), &stamp[8..9], &stamp[15..]), (12, 16, "T", "Z"), "{tag}");
    assert_eq!(build(&product, []).await.0, first);

    let (second, told) = build(&product, ["--refresh", "--keep-old"]).await;
    assert!(second > first && second.starts_with(&format!("sandbox-mcp:{hash}-")), "{second}");
    assert_ne!(layers(&second), layers(&first), "nothing comes from the cache");
    assert!(told.stderr.contains("is from no registry and stays"), "{}", told.stderr);
    assert!(is_there(&first));
    assert_eq!(build(&product, []).await.0, second);

    // What people made of it is theirs, and so is what is for other settings.
    engine::docker(["tag", &first, &base.other]);
    let label = |settings: &str, hash: &str| {
        let name = format!("sandbox-mcp:{hash}-20200101T000000Z");
        let text = format!(
            "FROM {}\nLABEL sandbox-mcp.image={name} sandbox-mcp.settings={settings}\n",
            base.name
        );
        dockerfile(&name, &text);
        name
    };
    let pid = format!("{:06x}", std::process::id());
    let older = label(setting(&first).as_str().expect("a label"), &format!("{pid}aaaaaa"));
    let others = label("0123", &format!("{pid}bbbbbb"));
    let derived = format!("sandbox-mcp-test-derived:p{}", std::process::id());
    dockerfile(&derived, &format!("FROM {first}\nLABEL mine=1\n"));
    let held = base.hold(&second);

    let (third, told) = build(&product, ["--refresh"]).await;
    assert!(!is_there(&first) && !is_there(&older), "{}", told.stderr);
    assert!(is_there(&second), "a container uses it");
    assert!(told.stderr.contains(&format!("{second} stays")), "{}", told.stderr);
    for kept in [&base.other, &others, &derived, &base.name, &image] {
        assert!(is_there(kept), "{kept}");
    }
    assert_eq!(build(&product, []).await.0, third);

    // A refresh that fails takes nothing away.
    engine::docker(["rm", &held]);
    base.make(&base.name, "printf '#!/bin/sh\\nexit 7\\n' > /usr/local/bin/apt-get");
    let told = product.call(["build", "--refresh"]).await;
    told.assert_code(1);
    assert!(is_there(&second) && is_there(&third));
    assert_eq!(build(&product, []).await.0, third);

    for image in [&second, &third, &others, &derived] {
        engine::docker(["rmi", image]);
    }
    plain.check_nothing_left().await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_image_cannot_be_refreshed() {
    let product = Product::without_engine().config("[image]\nname = \"no-such-image:ever\"\n");
    let told = product.call(["build", "--refresh"]).await;
    told.assert_code(1);
    assert!(told.stderr.contains("`image.name` is no-such-image:ever"), "{}", told.stderr);
    product.check_nothing_left().await;
}

/// Loads an image of one empty layer, as `docker save` would have written it, whose packages were
/// installed at a given time.
fn load(name: &str, packages_from: &str) {
    let layer = vec![0; 1024];
    let digest = sandbox_mcp::text::hex(&Sha256::digest(&layer));
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {"Labels": {"sandbox-mcp.image": name, "sandbox-mcp.settings": "test"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created": packages_from, "created_by": "/opt/sandbox/build/packages"}],
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("config.json", config.to_string().into_bytes()),
        ("layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, path, content.as_slice()).expect("packed");
    }
    fed(&["load", "-q"], &archive.into_inner().expect("packed"));
}

async fn about_the_image(product: &Product, workspace: &Workspace, check: &str) -> Value {
    let mut command = product.command(["doctor", "--json"]);
    command.current_dir(workspace.path());
    let told = product.start(command).wait().await;
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("findings").iter();
    let mut found = findings.filter(|one| one["area"] == "image" && one["check"] == check);
    found.next().unwrap_or_else(|| panic!("nothing about {check}: {document:#}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loaded_image_is_found_and_old_packages_are_a_warning() {
    let model = Model::start(Script::say("never asked")).await;
    let plain = Product::with_model(&model).await;
    let _alone = engine::lock(engine::IMAGES);
    let (base, _) = build(&plain, ["--keep-old"]).await;
    // Other packages, so that no other test means this image.
    let config = format!(
        "[image]\nbase = \"{base}\"\npackages = [\"none-{}\"]\nmax_age = 20\n",
        std::process::id()
    );
    let product =
        Product::without_engine().config(&config).env("SANDBOX_MCP_MODEL_URL", &model.url());
    let workspace = Workspace::new();
    let missing = about_the_image(&product, &workspace, "built").await;
    let words = missing["message"].as_str().expect("words");
    let name = words.strip_suffix(" is not there").expect("the name that it would have");

    // The time in the name is that of the build, which may have taken old packages from a cache.
    let old = format!("{name}-20260301T000000Z");
    load(&old, "2020-01-01T00:00:00Z");
    assert_eq!(build(&product, []).await.0, old);
    let warning = about_the_image(&product, &workspace, "packages").await;
    assert_eq!(warning["level"], "warning");
    assert!(warning["message"].to_string().contains("`image.max_age` is 20 days"), "{warning:#}");
    assert!(warning["remedy"].to_string().contains("`sandbox-mcp build --refresh`"), "{warning:#}");
    let config = config.replace("max_age = 20", "max_age = 0");
    let never = Product::without_engine().config(&config);
    assert_eq!(about_the_image(&never, &workspace, "packages").await["level"], "ok");

    let new = format!("{name}-20260302T000000Z");
    load(&new, &jiff::Timestamp::now().to_string());
    assert_eq!(build(&product, []).await.0, new, "nothing is built, and the newest is used");
    assert_eq!(about_the_image(&product, &workspace, "packages").await["level"], "ok");

    for image in [&old, &new] {
        engine::docker(["rmi", image]);
    }
    for product in [plain, product, never] {
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pinned_version_is_told_with_its_digest() {
    let product = Product::new().await;
    let (image, _) = build(&product, ["--keep-old"]).await;
    let pinned: Value = serde_json::from_str(include_str!("../../image/opencode.json")).expect("");
    let pinned: Vec<_> = pinned.as_object().expect("machines").values().collect();
    assert!(!pinned.is_empty());
    let told = product.call(["versions"]).await;
    told.assert_code(0);
    let has = |words: &[&str]| {
        let mut lines = told.stdout.lines();
        assert!(
            lines.any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?} {told:#?}"
        );
    };
    for pin in &pinned {
        let word = |key: &str| pin[key].as_str().expect("a word");
        has(&[word("package"), word("version"), word("integrity")]);
    }
    let id = engine::inspect(&image)["Id"].as_str().expect("an id").to_owned();
    has(&["sandbox-mcp ", env!("CARGO_PKG_VERSION")]);
    has(&["image ", &image, &id]);

    let told = product.call(["versions", "--json"]).await;
    let all: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(all["packages"].as_array().map(Vec::len), Some(pinned.len()));
    assert_eq!(
        (all["image"]["name"].as_str(), all["image"]["id"].as_str()),
        (Some(&*image), Some(&*id))
    );
    assert!(all["image"]["built"].is_string() && all["image"]["packages_from"].is_string());
    assert!(
        all["bases"].as_array().is_some_and(|bases| bases.iter().any(|one| one["id"].is_string()))
    );

    // What is pinned is known without an engine.
    let alone = Product::without_engine().env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let told = alone.call(["versions", "--json"]).await;
    told.assert_code(0);
    let all: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(all["packages"].as_array().map(Vec::len), Some(pinned.len()));
    assert!(all["engine"].is_null() && all["image"].is_null(), "{all:#}");
    product.check_nothing_left().await;
    alone.check_nothing_left().await;
}
