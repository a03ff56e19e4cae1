//! Using up the machine where the engine limits nothing: PID 1 itself watches then.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::common::{Model, Product, Script};
use crate::pipe::{frame, start};

/// Memory that has no name, and that no process has mapped.
const NAMELESS: &str = "import os, time; file = os.memfd_create('x'); \
                        [os.write(file, b'x' * 1000000) for _ in range(200)]; time.sleep(60)";

/// Has PID 1 run `argv`, and returns the last frame that it says of it.
fn ended(image: &str, argv: &[&str]) -> String {
    // The engine's own limits are far above PID 1's, and keep the machine safe from a test that fails.
    let limits = ["--memory", "1g", "--pids-limit", "2000"];
    let mut child = start(image, &limits, &["--memory", "100000000", "--processes", "50"]);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&frame(1, 0, argv.join("\0").as_bytes())).expect("an order");
    stdin.write_all(&frame(5, 0, &[b'a'; 32])).expect("an order");
    let mut output = child.stdout.take().expect("piped");
    let (mut told, begun) = (Vec::new(), Instant::now());
    let mut part = [0; 4096];
    let ended = loop {
        let got = output.read(&mut part).expect("output");
        told.extend_from_slice(&part[..got]);
        let text = String::from_utf8_lossy(&told);
        if let Some(at) = text.find("{\"nonce\":") {
            break text[at..].to_owned();
        }
        assert!(got > 0, "it ended without a word of its order: {text}");
    };
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    drop(stdin);
    child.wait().expect("it ends");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_over_before_the_machine_is() {
    let product = Product::with_model(&Model::start(Script::say("never asked")).await).await;
    let built = product.call(["build"]).await;
    built.assert_code(0);
    let image = built.stdout.trim();
    let anonymous = "my $x = 'x' x 200_000_000; sleep 60";
    let many = "fork for 1 .. 7; sleep 60";
    // Silent, because nobody here makes room for what it prints.
    let shell = "exec 2>/dev/null; bomb() { bomb | bomb & }; bomb; sleep 60";
    for (argv, overrun) in [
        (["perl", "-e", anonymous], "\"memory\""),
        (["python3", "-c", NAMELESS], "\"memory\""),
        (["perl", "-e", many], "\"processes\""),
        (["bash", "-c", shell], "\"processes\""),
        (["perl", "-e", "my $x = 'x' x 20_000_000; fork; sleep 3"], "null"),
    ] {
        let ended = ended(image, &argv);
        assert!(ended.contains(&format!("\"overrun\":{overrun}")), "{argv:?}: {ended}");
    }
    product.check_nothing_left().await;
}
