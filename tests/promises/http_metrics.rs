//! What `/metrics` tells apart.

use serde_json::json;

use crate::common::{Model, Product, Script, Web, Workspace};

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_engine_are_told_from_those_of_the_settings() {
    let model = Model::start(Script::say("never asked")).await;
    let without_engine = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let with_a_bad_hook =
        Product::with_model(&model).await.config("[hooks]\nbefore_start = \"false\"\n");
    for (product, kind, engine) in
        [(without_engine, "no_engine", true), (with_a_bad_hook, "hook", false)]
    {
        let workspace = Workspace::new();
        let web = Web::start(&product, &workspace).await;
        let client = web.greeted().await;
        let result = client.tool("run_in_sandbox", json!({"task": "x"})).await;
        assert_eq!(result["structuredContent"]["error"]["kind"], kind, "{result:#}");
        let counted = web.metrics().await;
        let of = |name: &str| {
            counted.get(&format!("sandbox_mcp_{name}{{kind=\"{kind}\"}}")).map(String::as_str)
        };
        assert_eq!(counted["sandbox_mcp_runs_total{status=\"sandbox_error\"}"], "1");
        assert_eq!(of("sandbox_errors_total"), Some("1"), "{kind}");
        assert_eq!(of("engine_errors_total"), engine.then_some("1"), "{kind}");
        drop(client);
        web.stop().await.assert_code(0);
        product.check_nothing_left().await;
    }
}
