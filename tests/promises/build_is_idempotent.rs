//! The image's name has a hash of what goes into it: nothing changed costs nothing, a change shows.

use std::time::Duration;

use crate::common::{Finished, Product, engine};

/// Builds, and gives the name of the image, which is all that stdout gets. Older ones stay: they may
/// be those of other checkouts on this machine.
async fn build(product: &Product) -> (String, Finished) {
    let told = product.call(["build", "--keep-old"]).await;
    told.assert_code(0);
    let image = told.stdout.trim().to_owned();
    assert!(image.starts_with("sandbox-mcp:") && !image.contains(char::is_whitespace), "{told:#?}");
    (image, told)
}

fn all_images() -> Vec<String> {
    let mut ids: Vec<String> =
        engine::docker(["images", "-a", "-q", "--no-trunc"]).lines().map(str::to_owned).collect();
    ids.sort();
    ids.dedup();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_input_costs_nothing() {
    let product = Product::new().await;
    let (image, _) = build(&product).await;
    let id = engine::inspect(&image)["Id"].clone();

    let (again, told) = build(&product).await;

    assert_eq!(again, image);
    assert_eq!(engine::inspect(&image)["Id"], id);
    assert!(told.took < Duration::from_secs(10), "{:?}", told.took);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_input_is_another_image_and_the_same_again_is_the_same() {
    let plain = Product::new().await;
    let _alone = engine::lock(engine::IMAGES);
    let (image, _) = build(&plain).await;
    // On top of the image that is there, so that all packages are installed already.
    let config = format!("[image]\nbase = \"{image}\"\nprofile = \"lean\"\n");
    let changed = Product::without_engine().config(&config);

    let (other, told) = build(&changed).await;
    assert_ne!(other, image);
    assert!(!told.stderr.trim().is_empty(), "a build of minutes is not silent");
    let before = all_images();
    let (again, told) = build(&changed).await;

    assert_eq!(again, other);
    assert!(told.took < Duration::from_secs(10), "{:?}", told.took);
    assert_eq!(all_images(), before, "no new layer, no new image");
    assert_ne!(engine::inspect(&other)["Id"], engine::inspect(&image)["Id"]);
    engine::docker(["rmi", &other]);
    plain.check_nothing_left().await;
    changed.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_image_is_used_as_it_is_and_a_missing_one_is_named() {
    let plain = Product::new().await;
    let (image, _) = build(&plain).await;
    let named = Product::without_engine().config(&format!("[image]\nname = \"{image}\"\n"));
    assert_eq!(build(&named).await.0, image);
    let missing = Product::without_engine().config("[image]\nname = \"no-such-image:ever\"\n");
    let told = missing.call(["build"]).await;
    told.assert_code(1);
    assert!(told.stderr.contains("no-such-image:ever"), "{}", told.stderr);
    for product in [plain, named, missing] {
        product.check_nothing_left().await;
    }
}
