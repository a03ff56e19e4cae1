"""Calls of the tool as chats of Open WebUI make them, one for each line of standard input.

Prints what the person and the model get, a JSON line each.
"""

import asyncio
import json
import sys

import real  # noqa: F401
import relay
from open_webui.utils.plugin import load_tool_module_by_id
from open_webui.utils.tools import get_async_tool_function_and_apply_extra_params, get_tool_specs


def tell(**line):
    print(json.dumps(line), flush=True)


async def chat(tool, asked):
    way, stop = relay.Relay(), asyncio.Event()
    if asked.get("cut_at"):
        asked["valves"]["url"] = await way.to(asked["valves"]["url"])
    tool.valves = tool.Valves(**asked["valves"])

    async def emit(event):
        tell(event=event)
        said = event["data"].get("description", "")
        if asked.get("stop_at") and asked["stop_at"] in said:
            stop.set()
        if asked.get("cut_at") and asked["cut_at"] in said:
            way.cut()

    async def ask(event):
        tell(asked=event)
        return asked.get("confirm", False)

    # What Open WebUI does before each call, see its get_tools().
    extra = {
        "__event_emitter__": emit,
        "__event_call__": ask,
        "__user__": {"id": "u", "role": "user", "valves": tool.UserValves(**asked.get("user_valves", {}))},
    }
    function = await get_async_tool_function_and_apply_extra_params(getattr(tool, asked["method"]), extra)
    call, stopping = asyncio.create_task(function(**asked["arguments"])), asyncio.create_task(stop.wait())
    await asyncio.wait([call, stopping], return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        call.cancel()  # as its stop button does
    stopping.cancel()
    try:
        tell(result=await call)
    except asyncio.CancelledError:
        tell(stopped=True)


async def main(path):
    with open(path) as file:
        tool, frontmatter, _ = await load_tool_module_by_id("sandbox", file.read())
    tell(frontmatter=frontmatter, specs=get_tool_specs(tool))
    while line := await asyncio.to_thread(sys.stdin.readline):
        await chat(tool, json.loads(line))


asyncio.run(main(sys.argv[1]))
