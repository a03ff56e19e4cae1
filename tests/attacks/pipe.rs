//! Speaking PID 1's frames from inside, and nonsense to PID 1 from outside.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Model, Product, Script, Workspace, engine};
use crate::inside::{assert_lines, attack};

#[tokio::test(flavor = "multi_thread")]
async fn frames_on_any_descriptor_say_nothing() {
    let home = Workspace::new();
    home.write("frames.py", include_str!("inside/frames.py"));
    let seen = attack(&home, "python frames.py").await;
    assert_lines(&seen.told, include_str!("expected/frames.txt"));
}

pub fn frame(kind: u8, channel: u16, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("small").to_be_bytes();
    [&[kind, 0], &channel.to_be_bytes()[..], &length, content].concat()
}

/// Starts PID 1 of a container of our image, with `limits` of the engine's and words of its own.
pub fn start(image: &str, limits: &[&str], own: &[&str]) -> Child {
    let mut command = Command::new("docker");
    if let Some(host) = engine::host() {
        command.env("DOCKER_HOST", host);
    }
    let usual = ["--cap-drop", "ALL", "--network", "none", "--user", "1000:1000"];
    command.args(["run", "--rm", "-i", "--entrypoint", "/opt/sandbox/init"]).args(usual);
    command.args(limits).args([image, "--lifetime", "30"]).args(own);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("docker")
}

/// Returns what PID 1 of a container of our image says of `input`, and how it ends.
fn said(image: &str, input: &[u8]) -> (Option<i32>, String, Duration) {
    let mut child = start(image, &["--memory", "64m"], &[]);
    let mut stdin = child.stdin.take().expect("piped");
    let start = Instant::now();
    // It may end before all is written.
    let _ = stdin.write_all(input);
    let mut told = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut told).expect("text");
    // Held open until then: not the end of input ended it.
    drop(stdin);
    (child.wait().expect("it ends").code(), told, start.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_peer_ends_pid_1_with_the_reason() {
    let product = Product::with_model(&Model::start(Script::say("never asked")).await).await;
    let built = product.call(["build"]).await;
    built.assert_code(0);
    let image = built.stdout.trim();
    let nonce = [b'a'; 32];
    let many = frame(4, 0, &vec![b'x'; 1 << 16]).repeat(17);
    let window = frame(36, 1, &1_u32.to_be_bytes());
    for (input, why) in [
        (b"argv 5\nhello\n\n\n\n\n\n\n\n".to_vec(), "protocol: a frame of"),
        (frame(99, 0, b""), "protocol: no nonce"),
        (frame(99, 0, &nonce), "protocol: frame 99"),
        (frame(5, 7, &nonce), "protocol: frame 5 on channel 7"),
        (frame(5, 0, &nonce), "protocol: no command"),
        (frame(5, 0, b"short"), "protocol: no nonce"),
        (frame(1, 0, b"")[..4].iter().chain(&[255; 4]).copied().collect(), "a frame of 4294967295"),
        (many, "protocol: list is too large"),
        (window, "protocol: too large a window of channel 1"),
        (frame(36, 9, &[0; 4]), "protocol: a window of channel 9"),
        (frame(36, 1, &[0; 5]), "protocol: a window of channel 1"),
    ] {
        let (code, told, time) = said(image, &input);
        assert_eq!((code, told.contains(why)), (Some(250), true), "{why}: {told}");
        assert!(time < Duration::from_secs(20), "{time:?}");
    }
    product.check_nothing_left().await;
}
