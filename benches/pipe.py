"""What the pipe costs a connection from inside, beside another build of sandbox-mcp.

    python3 benches/pipe.py --binary PATH [--before PATH] [-n ROUNDS] [-o FILE]

Standard library and Docker only. Replaces its own section of docs/benchmarks.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import model
import views

HEADING = "## The pipe"
TOKENS, DOWNLOAD = 300, 100_000_000
CLIENT = r"""
import json, re, socket, statistics, struct, sys, threading, time
ports = [int(port) for port in sys.argv[1:]]

def connect(port, what):
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(what)
    return client

def read(client, size):
    got = 0
    while got < size:
        got += len(client.recv(min(1 << 20, size - got)))
    return got

def rss():
    return int(re.search(r"VmRSS:\s*(\d+)", open("/proc/1/status").read())[1]) / 1024

first, trips = [], []
for _ in range(50):
    start = time.monotonic()
    connect(ports[0], b"e.").recv(1)
    first.append((time.monotonic() - start) * 1e3)
client = connect(ports[0], b"e")
for _ in range(500):
    start = time.monotonic()
    client.sendall(b".")
    client.recv(1)
    trips.append((time.monotonic() - start) * 1e3)
tokens, client = [], connect(ports[0], b"t")
for _ in range(TOKENS):
    piece = client.recv(64, socket.MSG_WAITALL)
    tokens.append((time.monotonic() - struct.unpack("<d", piece[:8])[0]) * 1e3)
client, start = connect(ports[0], b"d"), time.monotonic()
read(client, DOWNLOAD)
speed = DOWNLOAD / 1e6 / (time.monotonic() - start)
most, busy = [rss()], [threading.Thread(target=lambda n=n: read(connect(ports[n % 2], b"d"), 1 << 22)) for n in range(64)]
for one in busy: one.start()
while any(one.is_alive() for one in busy):
    most.append(rss())
    time.sleep(0.01)
middle = statistics.median
json.dump({"first": middle(first), "trip": middle(trips), "token": middle(tokens), "speed": speed,
           "rss": max(most)}, open("result.json", "w"))
"""
ROWS = {
    "first": ("connect and first byte, ms", "{:.2f}"),
    "trip": ("round trip of 1 byte, ms", "{:.3f}"),
    "token": ("a streamed token's way in, ms", "{:.3f}"),
    "speed": ("download of 100 MB, MB/s", "{:.0f}"),
    "rss": ("PID 1 under 64 busy connections, MiB", "{:.1f}"),
    "total": ("the whole run, ms", "{:.0f}"),
}


def main():
    parser = argparse.ArgumentParser(prog="benches/pipe.py")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", default=str(views.REPO / "docs/benchmarks.md"))
    parser.add_argument("--binary", required=True)
    parser.add_argument("--before")
    options = parser.parse_args()
    subjects = {"before": options.before, "now": options.binary}
    subjects = {name: os.path.abspath(path) for name, path in subjects.items() if path}
    work = pathlib.Path(tempfile.mkdtemp(prefix="sandbox-mcp-bench-"))
    work.chmod(0o755)
    try:
        bench, results = Bench(work), {name: [] for name in subjects}
        for turn in range(options.rounds + 1):
            for name, binary in subjects.items():
                print(f"round {turn}: {name}", file=sys.stderr)
                seen = bench.run(binary)
                if turn:  # the first one warms up
                    results[name].append(seen)
        text = report(results, options)
        output = pathlib.Path(options.output)
        page = output.read_text() if output.exists() else ""
        output.write_text(page.replace(views.kept(page, HEADING), "").rstrip() + "\n\n" + text)
        print(text)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def serve(listener):
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(client,), daemon=True).start()


def answer(client):
    try:
        what = client.recv(1)
        if what == b"d":
            piece, left = b"x" * (1 << 18), DOWNLOAD
            while left > 0:
                client.sendall(piece[:left])
                left -= len(piece)
        elif what == b"t":
            for _ in range(TOKENS):
                client.sendall(struct.pack("<d", time.monotonic()).ljust(64))
                time.sleep(0.005)
        while what == b"e" and (piece := client.recv(1)):
            client.sendall(piece)
    except OSError:
        pass  # the client has what it wanted
    finally:
        client.close()


class Bench:
    def __init__(self, work):
        self.work = work
        self.owner = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
        (work / "sockets").mkdir()
        self.model, _ = model.start(str(work / "sockets/model.sock"), self.owner, 0)
        self.ports = []
        for _ in range(2):
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.ports.append(listener.getsockname()[1])
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        (work / "config.toml").write_text(f"[egress]\nhost_ports = {self.ports}\n")

    def run(self, binary):
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.work))
        client = CLIENT.replace("TOKENS", str(TOKENS)).replace("DOWNLOAD", str(DOWNLOAD))
        (folder / "client.py").write_text(client)
        for path in (folder, folder / "client.py"):
            os.chown(path, *self.owner)
        environment = {
            **os.environ,
            "SANDBOX_MCP_STATE_DIR": str(self.work / "state"),
            "SANDBOX_MCP_CONFIG": str(self.work / "config.toml"),
            "SANDBOX_MCP_MODEL_URL": f"http://127.0.0.1:{self.model}/v1",
        }

        def ask(command):
            model.TURNS[:] = [("bash", {"command": command, "description": "Works"}), "Done."]
            argv = [binary, "--quiet", "run", "--json", "-"]
            done = subprocess.run(
                argv, cwd=folder, env=environment, input=b"Work.", capture_output=True
            )
            report = json.loads(done.stdout or "{}")
            if report.get("status") != "completed":
                sys.exit(f"{binary}: {report.get('status')}\n{done.stderr.decode()}")
            return report["timing"]["total_ms"]

        total = ask("echo hello > note.txt")
        ask(f"python3 client.py {self.ports[0]} {self.ports[1]}")
        return {**json.loads((folder / "result.json").read_text()), "total": total}


def report(results, options):
    names = [name for name, runs in results.items() if runs]
    lines = [
        HEADING, "", "Written by `benches/pipe.py`; do not edit by hand.", "",
        "A program inside speaks with a server on this machine (`egress.host_ports`): the builds taking "
        f"turns, {options.rounds} rounds after one discarded; medians. *before* mounted unix sockets, with "
        "socat in the sandbox. The run of the last line writes one file." if "before" in names else
        f"A program inside speaks with a server on this machine: {options.rounds} rounds; medians.", "",
        "| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names),
    ]
    for key, (what, form) in ROWS.items():
        middle = [statistics.median(one[key] for one in results[name]) for name in names]
        lines.append(f"| {what} | " + " | ".join(form.format(value) for value in middle) + " |")
    today = datetime.date.today().isoformat()
    lines += ["", f"{today}, {os.cpu_count()} cores, kernel {platform.release()}, load "
              f"{os.getloadavg()[0]:.1f} at the end; release builds.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
