"""Measures what the gateway adds to each chunk of a streamed answer.

    python3 benches/relay.py --binary target/release/sandbox-mcp [-n CHUNKS]

A scripted server sends one chunk every two milliseconds, with the moment in it. The same client
reads such answers in turn: straight from the server, through a plain pipe that looks at nothing, and
through the gateway of a running sandbox. Prints the medians in microseconds. Needs Docker and the right to open the run's
sockets (root, or the user who runs it). Standard library only.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time

import model

ROUNDS = 5
PACE = 0.002  # seconds between two chunks


class Handler(model.Handler):
    """Answers the agent with one long command, and the client with paced chunks."""

    def answer(self, name, turn):
        def send(delta, reason=None):
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": name}
            line = b"data: " + json.dumps({**data, "choices": choices}).encode() + b"\n\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

        if self.server.paced:
            for _ in range(self.server.chunks):
                time.sleep(PACE)
                send({"content": f"{time.monotonic_ns()} "})
        else:
            arguments = json.dumps({"command": "sleep 300", "description": "Waits"})
            call = {"index": 0, "id": "c1", "type": "function"}
            send({"tool_calls": [{**call, "function": {"name": "bash", "arguments": arguments}}]})
        send({}, "stop" if self.server.paced else "tool_calls")
        self.wfile.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


class Connection(http.client.HTTPConnection):
    """To a unix socket, where a path is given."""

    def __init__(self, address):
        super().__init__("localhost")
        self.address = address

    def connect(self):
        unix = isinstance(self.address, pathlib.Path)
        self.sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        if not unix:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(str(self.address) if unix else self.address)


def pipe(target):
    """Starts a forwarder that copies bytes; returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def copy(source, sink):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def serve():
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()


def latencies(address, chunks):
    connection = Connection(address)
    messages = [{"role": "user", "content": "Count."}]
    body = {"model": "bench", "stream": True, "messages": messages}
    head = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
    seen = []
    for line in connection.getresponse():
        now = time.monotonic_ns()
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:]).get("choices")
            words = choices and (choices[0]["delta"].get("content") or "").strip()
            if words:
                seen.append((now - int(words)) / 1000)
    connection.close()
    if len(seen) != chunks:
        raise SystemExit(f"{len(seen)} of {chunks} chunks came")
    return seen


def main():
    parser = argparse.ArgumentParser(prog="benches/relay.py")
    parser.add_argument("--binary", required=True)
    parser.add_argument("-n", "--chunks", type=int, default=500)
    options = parser.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="sandbox-mcp-relay-"))
    work.chmod(0o755)
    workspace = work / "workspace"
    workspace.mkdir()
    if os.geteuid() == 0:
        os.chown(workspace, 1000, 1000)
    server = model.Tcp(("127.0.0.1", 0), Handler)
    server.notes, server.delay = model.Notes(), 0
    server.paced, server.chunks = False, options.chunks
    threading.Thread(target=server.serve_forever, daemon=True).start()
    runtime = work / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(runtime),
        "SANDBOX_MCP_STATE_DIR": str(work / "state"),
        "SANDBOX_MCP_MODEL_URL": f"http://127.0.0.1:{server.server_address[1]}",
    }
    command = [options.binary, "run", "--workspace", workspace, "--json", "wait"]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        for _ in range(1200):
            found = list(runtime.rglob("model.sock"))
            if found and server.notes.first is not None:
                break
            time.sleep(0.1)
        else:
            raise SystemExit("the run did not begin")
        time.sleep(2)
        server.paced = True
        plain = pipe(server.server_address)
        ways = {"straight": server.server_address, "plain pipe": plain, "gateway": found[0]}
        seen = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, address in ways.items():
                seen[name] += latencies(address, options.chunks)
        print(f"{ROUNDS * options.chunks} chunks each, medians of one way in microseconds:")
        print(", ".join(f"{name} {statistics.median(all):.0f}" for name, all in seen.items()))
    finally:
        run.terminate()
        run.wait(60)
        server.shutdown()
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
