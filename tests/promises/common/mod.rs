//! What the promises are tested with: the real binary, the real engine, a scripted model.
//!
//! A test reads like this:
//!
//! ```ignore
//! let model = Model::start(Script::bash("echo hello > note.txt").then_say("done")).await;
//! let product = Product::with_model(&model).await;
//! let workspace = Workspace::new();
//! let run = product.run(&workspace, ["--json", "write a note"]).await;
//! assert_eq!(run.report()["status"], "completed");
//! product.check_nothing_left().await;
//! ```

pub mod clients;
pub mod engine;
pub mod internet;
pub mod leftovers;
pub mod mcp;
pub mod model;
pub mod product;
pub mod web;
pub mod webui;
pub mod wire;
pub mod workspace;

pub use internet::Internet;
pub use mcp::Mcp;
pub use model::{Answer, Gate, Model, Part, Reply, Script};
pub use product::{Finished, Product, Running, Stream};
pub use web::Web;
pub use workspace::{Workspace, person};

use std::time::Duration;

/// Longer than anything here takes on a busy machine; only a hang gets this far.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Polls until `probe` gives a value; panics with `what` when it never does.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> T {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {within:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
