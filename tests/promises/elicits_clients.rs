//! Real clients ask their user, and offer what arguments may be.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::clients::Python;
use crate::elicits::{assert_untouched, trusted};
use crate::outcome::RUN;

/// Answers the question as it is told to, and prints the question, the result and what is offered.
const PYTHON: &str = r"
import asyncio, json, os, sys
from mcp import StdioServerParameters, types

said, mode, run = sys.argv[2:]
asked = []

async def person(context, params):
    asked.append(params.message)
    return types.ElicitResult(action=said, content={'allow': True} if said == 'accept' else None)

async def work(client):
    ref = types.PromptReference(type='ref/prompt', name='review-run')
    offered = await client.complete(ref, {'name': 'run_id', 'value': run[:4]})
    result = await client.call_tool('apply_changes', {'run_id': run})
    result = result.model_dump(mode='json')
    content = result.get('structured_content') or result.get('structuredContent')
    print(json.dumps({'asked': asked, 'offered': offered.completion.values, 'result': content}))

async def main():
    server = StdioServerParameters(command=sys.argv[1], args=[], env=dict(os.environ))
    if mode:
        from mcp import Client
        async with Client(server, mode=mode, elicitation_callback=person) as client:
            await work(client)
        return
    from mcp import ClientSession
    from mcp.client.stdio import stdio_client
    async with stdio_client(server) as (reader, writer):
        async with ClientSession(reader, writer, elicitation_callback=person) as session:
            await session.initialize()
            await work(session)

asyncio.run(main())
";

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdks_ask_and_offer() {
    for (package, mode) in [("mcp==1.30.0", ""), ("mcp==2.3.0", "legacy"), ("mcp==2.3.0", "auto")] {
        let Some(python) = Python::with(package) else { return };
        let result = trusted();
        for said in ["decline", "accept"] {
            let mut command = Command::from(python.command());
            result.product.furnish(&mut command);
            command.args(["-c", PYTHON, env!("CARGO_BIN_EXE_sandbox-mcp"), said, mode, RUN]);
            command.current_dir(result.workspace.path());
            let ended = result.product.start(command).wait().await;
            ended.assert_code(0);
            let told: Value = serde_json::from_str(&ended.stdout).expect("JSON");
            assert_eq!(told["offered"], json!([RUN]), "{told:#}");
            let asked = told["asked"].as_array().expect("a list");
            assert_eq!(asked.len(), 1, "{told:#}");
            assert!(asked[0].as_str().is_some_and(|text| text.contains("`.envrc`")), "{told:#}");
            if said == "accept" {
                assert_eq!(told["result"]["state"], "applied", "{package} {mode}: {told:#}");
                assert_eq!(result.workspace.read("a.txt"), "new");
            } else {
                assert_eq!(told["result"]["error"]["kind"], "not_answered", "{told:#}");
                assert_untouched(&result).await;
            }
        }
        result.product.check_nothing_left().await;
    }
}
