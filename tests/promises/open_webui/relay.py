"""A way to a server that can be cut, as a network or a sleeping laptop cuts it."""

import asyncio
import os
from urllib.parse import urlsplit, urlunsplit


class Relay:
    def __init__(self):
        self.open = set()

    async def to(self, url):
        """The address that leads to `url`."""
        there = urlsplit(url)

        async def pump(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            except ConnectionError:
                pass
            finally:
                writer.close()

        async def serve(reader, writer):
            further, onward = await asyncio.open_connection(there.hostname, there.port)
            self.open |= {writer, onward}
            await asyncio.gather(pump(reader, onward), pump(further, writer))
            self.open -= {writer, onward}

        port = int(os.environ["RELAY_PORT"])  # the server has to know what it is called by
        await asyncio.start_server(serve, "127.0.0.1", port)
        return urlunsplit(there._replace(netloc=f"127.0.0.1:{port}"))

    def cut(self):
        for writer in self.open:
            writer.transport.abort()
