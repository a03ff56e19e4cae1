"""Open WebUI's own MCP client, used as its chats use it, one for each line of standard input.

Where a line says so, the next one stops the chat.
"""

import asyncio
import json
import sys

import real  # noqa: F401
from open_webui.utils.mcp.client import MCPClient
from open_webui.utils.tools import clean_openai_tool_schema


async def chat(url, token, task, stop=False):
    client = MCPClient()
    told = {}
    try:
        await client.connect(url, headers={"Authorization": f"Bearer {token}"})
        told["instructions"] = client.instructions
        told["specs"] = [clean_openai_tool_schema(spec) for spec in await client.list_tool_specs()]
        call = asyncio.create_task(client.call_tool("run_in_sandbox", {"task": task}))
        if stop:
            await asyncio.to_thread(sys.stdin.readline)
            call.cancel()
        told["result"] = await call
    except asyncio.CancelledError:
        told["stopped"] = True
    except BaseException as error:  # its middleware shows str() of it
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        told["error"] = str(error)
    finally:
        await client.disconnect()
    print(json.dumps(told), flush=True)


async def main():
    while line := await asyncio.to_thread(sys.stdin.readline):
        await chat(**json.loads(line))


asyncio.run(main())
