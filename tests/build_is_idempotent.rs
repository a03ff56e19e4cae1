//! The image's tag is a hash of what goes into it: nothing changed costs nothing, a change shows.

mod common;

use std::time::Duration;

use common::{Product, engine};
use serde_json::Value;

/// The image that runs of this house would use.
async fn image(product: &Product) -> String {
    let told = product.call(["policy", "--json"]).await;
    told.assert_code(0);
    let policy: Value = serde_json::from_str(&told.stdout).expect("JSON");
    product.check_nothing_left().await;
    policy["image"].as_str().unwrap_or_else(|| panic!("no image: {policy:#}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_input_costs_nothing() {
    let product = Product::new().await;
    let tag = image(&product).await;
    let before = engine::docker(["images", "-a", "-q", "--no-trunc"]);
    let id = engine::inspect(&tag)["Id"].clone();

    let again = product.call(["build"]).await;

    again.assert_code(0);
    assert!(again.took < Duration::from_secs(10), "{:?}", again.took);
    assert!(format!("{}{}", again.stdout, again.stderr).contains(&tag), "{again:#?}");
    assert_eq!(engine::inspect(&tag)["Id"], id);
    assert_eq!(
        engine::docker(["images", "-a", "-q", "--no-trunc"]),
        before,
        "no new layer, no new image"
    );
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_input_is_another_tag_and_the_same_again_is_the_same() {
    let plain = image(&Product::new().await).await;
    let mut tags = vec![plain.clone()];
    for toml in [
        "[image]\npackages = [\"tree\"]\n",
        "[image]\npackages = [\"sl\"]\n",
        "[image]\nprofile = \"lean\"\n",
        "[image]\nbase = \"debian:trixie-slim\"\n",
    ] {
        let first = image(&Product::new().await.config(toml)).await;
        let second = image(&Product::new().await.config(toml)).await;
        assert_eq!(first, second, "{toml}");
        tags.push(first);
    }
    let different = tags.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(different, tags.len(), "{tags:#?}");
    assert!(plain.starts_with("sandbox-mcp:"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_image_is_used_as_it_is() {
    let plain = image(&Product::new().await).await;
    let named = Product::new().await.config(&format!("[image]\nname = \"{plain}\"\n"));
    assert_eq!(image(&named).await, plain);
    let missing = Product::new().await.config("[image]\nname = \"no-such-image:ever\"\n");
    let told = missing.call(["build"]).await;
    told.assert_code(1);
    assert!(told.stderr.contains("no-such-image:ever"), "{}", told.stderr);
    missing.check_nothing_left().await;
}
