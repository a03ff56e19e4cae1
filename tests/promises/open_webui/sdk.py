"""The Python SDK of either kind over Streamable HTTP: a run with progress, one cut off, one cancelled."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from importlib.metadata import version

import relay

FIRST = version("mcp").startswith("1.")
if FIRST:
    from mcp.client.streamable_http import streamablehttp_client

    from mcp import ClientSession, types

    @asynccontextmanager
    async def connect(url, headers, mode):
        async with streamablehttp_client(url, headers=headers) as (reader, writer, _):
            async with ClientSession(reader, writer) as session:
                session.spoken = (await session.initialize()).protocolVersion
                yield session

    async def withdraw(session, call):
        params = types.CancelledNotificationParams(requestId=session._request_id - 1)
        note = types.CancelledNotification(method="notifications/cancelled", params=params)
        await session.send_notification(types.ClientNotification(note))
        call.cancel()

    def spoken(session):
        return session.spoken

else:
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    from mcp import Client

    @asynccontextmanager
    async def connect(url, headers, mode):
        async with httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=300)) as http:
            async with Client(streamable_http_client(url, http_client=http), mode=mode) as session:
                yield session

    async def withdraw(session, call):
        call.cancel()

    def spoken(session):
        return session.protocol_version


async def run(session, way, what):
    """Its task is its name, which the scripted model goes by."""
    heard, told = asyncio.Event(), {"what": what, "version": spoken(session), "progress": []}

    async def progress(number, total, message):
        told["progress"].append(message)
        if "bash" in message:
            heard.set()

    call = asyncio.create_task(session.call_tool("run_in_sandbox", {"task": what}, progress_callback=progress))
    if what != "whole":
        await heard.wait()
        if what == "cancel":
            await withdraw(session, call)
        else:
            way.cut()
    try:
        told["result"] = (await call).model_dump(mode="json", by_alias=True)["structuredContent"]
    except asyncio.CancelledError:
        told["stopped"] = True
    print(json.dumps(told), flush=True)


async def main(url, token, mode, *whats):
    way = relay.Relay()
    async with connect(await way.to(url), {"Authorization": f"Bearer {token}"}, mode) as session:
        for what in whats:
            await run(session, way, what)


asyncio.run(main(*sys.argv[1:]))
