"""Open WebUI's own MCP client, used as its chats use it. A line on standard input stops the chat."""

import asyncio
import json
import sys

import real  # noqa: F401
from open_webui.utils.mcp.client import MCPClient
from open_webui.utils.tools import clean_openai_tool_schema


async def main(url, token, arguments):
    client = MCPClient()
    told = {}
    try:
        await client.connect(url, headers={"Authorization": f"Bearer {token}"})
        told["instructions"] = client.instructions
        told["specs"] = [clean_openai_tool_schema(spec) for spec in await client.list_tool_specs()]
        call = asyncio.create_task(client.call_tool("run_in_sandbox", arguments))
        line = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
        await asyncio.wait([call, line], return_when=asyncio.FIRST_COMPLETED)
        if line.done() and line.result():
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
    print(json.dumps(told))


asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
