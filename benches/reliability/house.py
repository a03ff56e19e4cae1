"""An installation of its own for the script, a client of its server, and what it leaves behind."""

import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time

RUN_LABEL = "sandbox-mcp.run"


def docker(*arguments):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[:-1]


class House:
    """HOME, configuration, state and runtime folders apart from the user's own."""

    def __init__(self, binary, model_url):
        self.binary = binary
        # Sockets have short paths.
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sm-", dir="/tmp"))
        self.env = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("SANDBOX_MCP_", "OPENCODE_", "XDG_"))
        }
        for name, folder in [
            ("HOME", "home"), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "run"),
            ("SANDBOX_MCP_STATE_DIR", "state"), ("TMPDIR", "tmp"),
        ]:
            (self.root / folder).mkdir(mode=0o700)
            self.env[name] = str(self.root / folder)
        self.env["SANDBOX_MCP_MODEL_URL"] = model_url
        self.runs = set()

    def workspace(self, name):
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text("A workspace.\n")
        if os.geteuid() == 0:
            for path in [folder, folder / "README.md"]:
                os.chown(path, 1000, 1000)
        return folder

    def engine(self):
        """Containers and volumes of this house's runs; others may use the same engine."""
        records = (self.root / "state/runs").glob("20*")
        self.runs |= {record.name for record in records}
        label = f"label={RUN_LABEL}"
        shown = '{{.%s}} {{.Label "' + RUN_LABEL + '"}}'
        found = []
        for kind, name, listing in [("container", "ID", ["ps", "-a"]), ("volume", "Name", ["volume", "ls"])]:
            for line in docker(*listing, "--filter", label, "--format", shown % name):
                one, run = line.split()
                if run in self.runs:
                    found.append(f"{kind} {one}")
        return found

    def processes(self):
        """Processes with this house in their environment."""
        mark = f"SANDBOX_MCP_STATE_DIR={self.root}/state".encode()
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(f"process {process.name} {(process / 'comm').read_text().strip()}")
            except OSError:
                pass
        return found

    def leftovers(self):
        """What no run should leave: containers, volumes, layers, sockets, temporary files."""
        found = self.engine()
        for folder in ["state/layers", "tmp"]:
            found += [f"file {one}" for one in (self.root / folder).glob("*") if one.name != "spare"]
        for path in (self.root / "run").rglob("*"):
            try:
                if path.is_socket() or (path.is_dir() and path.name[:2] == "20"):
                    found.append(f"file {path}")
            except OSError:
                pass
        return found

    def settle(self, seconds=20):
        """Waits until nothing is left, and returns what is all the same."""
        until = time.monotonic() + seconds
        while (left := self.leftovers() + self.processes()) and time.monotonic() < until:
            time.sleep(0.25)
        return left

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)


class Client:
    """An MCP host with one server of its own, able to have many calls open."""

    def __init__(self, house, folder):
        self.house = house
        self.log = open(house.root / "server.log", "ab")
        self.process = subprocess.Popen(
            [house.binary], cwd=folder, env=house.env, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )
        self.next, self.open, self.lock = 0, {}, threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()
        hello = {"protocolVersion": "2025-06-18", "capabilities": {},
                 "clientInfo": {"name": "reliability", "version": "1"}}
        self.request("initialize", hello).get(timeout=30)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        with self.lock:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def read(self):
        for line in self.process.stdout:
            message = json.loads(line)
            answer = self.open.pop(message.get("id"), None)
            if answer is not None and "method" not in message:
                answer.put(message)
        for answer in list(self.open.values()):
            answer.put({"gone": True})

    def request(self, method, params):
        with self.lock:
            self.next += 1
            number = self.next
        self.open[number] = answer = queue.Queue()
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return answer

    def start(self, task, tool="run_in_sandbox", **arguments):
        if tool == "run_in_sandbox":
            arguments["task"] = task
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def run(self, task, seconds=120, **arguments):
        result = self.wait(self.start(task, **arguments), seconds)
        # A host's patience ends before a slow machine's run does.
        waits = not arguments.get("background") and arguments.get("tool") != "get_run"
        while waits and result["status"] == "running":
            arguments = {"tool": "get_run", "run_id": result["run_id"], "wait_seconds": 30}
            result = self.wait(self.start(None, **arguments), seconds)
        return result

    def wait(self, answer, seconds=120):
        """The result of a call; raises queue.Empty for one that hangs."""
        message = answer.get(timeout=seconds)
        if "result" not in message:
            return {"status": "no answer", "said": message}
        result = message["result"]
        told = result.get("structuredContent")
        return told or {"status": "refused", "said": result["content"][0]["text"]}

    def memory_and_files(self):
        """Resident kilobytes and open files of the server."""
        process = pathlib.Path(f"/proc/{self.process.pid}")
        status = (process / "status").read_text()
        resident = next(line for line in status.split("\n") if line.startswith("VmRSS"))
        return int(resident.split()[1]), len(list((process / "fd").iterdir()))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self.log.close()
