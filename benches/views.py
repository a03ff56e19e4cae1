"""What a view of its own costs a run: beside a run that only reads, in folders of several sizes; and
for runs that write much, beside a container that writes into the folder itself.

    python3 benches/views.py --binary PATH [-n ROUNDS] [-o FILE] [--sizes 10,1000,100000]

Standard library and Docker only. Replaces its own section of docs/benchmarks.md.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import model

REPO = pathlib.Path(__file__).resolve().parent.parent
HEADING = "## Views"
# Mode and `workspace.isolation` of each.
SUBJECTS = {
    "folder": ("read_only", "auto"),
    "usual": ("direct", "auto"),
    "overlay": ("direct", "overlay"),
    "copy": ("direct", "copy"),
}
# A copy of more is not what anybody gets by default.
MOST_COPIED = 1000
LOOK = "ls -la && cat part-000/part-0000/file-0.txt"
NOTE = "echo hello > note.txt"
WRITES = {
    "50,000 files of 1 kB": "mkdir out && cd out && for d in $(seq 50); do mkdir $d; "
    "head -c 1024000 /dev/urandom | split -b 1024 -a 4 - $d/f; done",
    "1 GB in one file": "mkdir out && head -c 1000000000 /dev/zero | tr '\\0' x > out/large",
}


def main():
    parser = argparse.ArgumentParser(prog="benches/isolated.py")
    parser.add_argument("-n", "--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", default=str(REPO / "docs/benchmarks.md"))
    parser.add_argument("--binary", required=True)
    parser.add_argument("--sizes", default="10,1000,100000")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    work = pathlib.Path(tempfile.mkdtemp(prefix="sandbox-mcp-bench-"))
    work.chmod(0o755)
    try:
        bench = Bench(os.path.abspath(options.binary), work)
        folders = {size: bench.folder(size) for size in sizes}
        results = {}
        for turn in range(options.rounds + 1):
            for size, folder in folders.items():
                for name in SUBJECTS:
                    if name == "copy" and size > MOST_COPIED:
                        continue
                    print(f"round {turn}: {name}, {size} files", file=sys.stderr)
                    took = bench.run(name, folder)
                    if turn:  # the first one warms up
                        results.setdefault((size, name), []).append(took)
        written = {}
        for turn in range(options.rounds):
            for name, command in WRITES.items():
                print(f"round {turn}: {name}", file=sys.stderr)
                written.setdefault(name, []).append(bench.write(command, folders[sizes[0]]))
        text = report(sizes, results, written, options)
        output = pathlib.Path(options.output)
        page = output.read_text() if output.exists() else ""
        output.write_text(page.replace(kept(page), "").rstrip() + "\n\n" + text)
        print(text)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def kept(page, heading=HEADING):
    """Our own section of a page that somebody else writes."""
    start = page.find(heading)
    if start < 0:
        return ""
    end = page.find("\n## ", start + 1)
    return page[start:] if end < 0 else page[start:end + 1]


class Bench:
    def __init__(self, binary, work):
        self.binary, self.work = binary, work
        self.kept = 0
        # A container never works as root, so root measures with somebody else's folder.
        self.owner = (os.getuid(), os.getgid()) if os.getuid() else (1000, 1000)
        (work / "sockets").mkdir()
        socket = str(work / "sockets/model.sock")
        self.port, _ = model.start(socket, self.owner, 0)
        for name, (_, isolation) in SUBJECTS.items():
            (work / f"{name}.toml").write_text(f'[workspace]\nisolation = "{isolation}"\n')

    def folder(self, size):
        folder = self.work / f"files-{size}"
        folder.mkdir()
        os.chown(folder, *self.owner)
        for at in range(0, size, 100):
            below = folder / f"part-{at // 10000:03}" / f"part-{at // 100:04}"
            below.mkdir(parents=True)
            for number in range(at, min(at + 100, size)):
                (below / f"file-{number}.txt").write_text(f"file {number}\n" * 40)
        for path, _, names in os.walk(folder):
            for name in [path, *(os.path.join(path, name) for name in names)]:
                os.chown(name, *self.owner)
        return folder

    def ask(self, name, folder, command):
        """Runs a command by way of the agent; returns the report."""
        mode, _ = SUBJECTS[name]
        environment = {
            **os.environ,
            "SANDBOX_MCP_STATE_DIR": str(self.work / "state"),
            "SANDBOX_MCP_CONFIG": str(self.work / f"{name}.toml"),
            "SANDBOX_MCP_MODEL_URL": f"http://127.0.0.1:{self.port}/v1",
        }
        model.TURNS[:] = [("bash", {"command": command, "description": "Works"}), "Done."]
        argv = [self.binary, "--quiet", "run", "--json", "--mode", mode, "-"]
        done = subprocess.run(
            argv, cwd=folder, env=environment, input=b"Look around.", capture_output=True
        )
        report = json.loads(done.stdout or "{}")
        if report.get("status") != "completed":
            sys.exit(f"{name}: {report.get('status')}\n{done.stderr.decode()}")
        return report

    def run(self, name, folder):
        reads = SUBJECTS[name][0] == "read_only"
        report = self.ask(name, folder, LOOK if reads else NOTE)
        view = report["workspace"].get("view")
        expected = {"folder": [None], "usual": ["copy", "reflink", "overlay"],
                    "overlay": ["overlay"], "copy": ["copy", "reflink"]}[name]
        note = folder / "note.txt"
        if view not in expected or note.exists() == reads:
            sys.exit(f"{name}: {view}, and the note is in the wrong place")
        note.unlink(missing_ok=True)
        timing = report["timing"]
        parts = {part: timing[f"{part}_ms"] for part in ("prepare", "boot", "cleanup")}
        return {**parts, "own": sum(parts.values()), "view": view}

    def write(self, command, folder):
        """Seconds of a run that writes much, and of the same run if it wrote in place: one that
        writes a note, with what a container takes longer for the command than for the note."""
        took = {}
        for kind, what in (("note", NOTE), ("much", command)):
            report = self.ask("usual", folder, what)
            took[kind] = report["timing"]["total_ms"] / 1000
            image = report["sandbox"]["image"]
            self.clear(folder)
            argv = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "/bin/sh"]
            argv += ["-u", f"{self.owner[0]}:{self.owner[1]}", "-v", f"{folder}:/w", "-w", "/w"]
            began = time.monotonic()
            subprocess.run([*argv, image, "-c", what], check=True, stdout=subprocess.DEVNULL)
            took[f"{kind} in place"] = time.monotonic() - began
            self.clear(folder)
        in_place = took["note"] + took["much in place"] - took["note in place"]
        return took["much"], in_place

    def clear(self, folder):
        # Not removed before the end: ext4 makes files ten times slower while it remembers many that
        # were deleted a moment ago.
        if (folder / "out").exists():
            self.kept += 1
            (folder / "out").rename(self.work / f"out-{self.kept}")
        (folder / "note.txt").unlink(missing_ok=True)


def report(sizes, results, written, options):
    lines = [
        HEADING,
        "",
        "Written by `benches/views.py`; do not edit by hand.",
        "",
        "One run's time without the agent's own, in milliseconds: *prepare* (looking for what is "
        "needed and hidden), *boot* (the container and its view), *cleanup* (removal, telling what "
        "changed, applying it). A run that writes one file, in folders of three sizes, the views "
        f"taking turns, {options.rounds} rounds after one discarded; medians. *Ratio* is the median "
        "of the ratios to a run that only reads the folder, within each round. *usual* is what "
        "`workspace.isolation = \"auto\"` takes.",
        "",
        "| files | asked for | view | prepare | boot | cleanup | together | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        base = results[size, "folder"]
        for name in SUBJECTS:
            runs = results.get((size, name))
            if not runs:
                continue
            middle = {
                part: round(statistics.median(run[part] for run in runs))
                for part in ("prepare", "boot", "cleanup", "own")
            }
            ratio = statistics.median(
                run["own"] / other["own"] for run, other in zip(runs, base, strict=True)
            )
            view = runs[0]["view"] or "none, read only"
            lines.append(
                f"| {size:,} | {name} | {view} | {middle['prepare']} | {middle['boot']} | "
                f"{middle['cleanup']} | {middle['own']} | {ratio:.2f} × |"
            )
    least, most = sizes[0], sizes[-1]
    own = {size: statistics.median(run["own"] for run in results[size, "overlay"])
           for size in (least, most)}
    lines += [
        "",
        f"From {least:,} to {most:,} files an overlay's share changes by "
        f"{round(own[most] - own[least])} ms. Nothing that is done for it grows with the folder.",
        "",
        *writes(written),
        f"{datetime.date.today()}, {os.cpu_count()} cores, kernel {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f} at the end; {build(options.binary)}.",
        "",
    ]
    return "\n".join(lines)


def writes(written):
    lines = [
        "Runs that write much, in seconds, with applying. *In place* is the same run if it wrote "
        "into the folder itself: a run that writes a note, with what a plain container takes longer "
        "for the command than for the note.",
        "",
        "| what is written | run | in place | ratio |",
        "|---|---|---|---|",
    ]
    for name, runs in written.items():
        ours, theirs = (statistics.median(run[at] for run in runs) for at in (0, 1))
        ratio = statistics.median(ours / theirs for ours, theirs in runs)
        lines.append(f"| {name} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} × |")
    return [*lines, ""]


def build(binary):
    kind = "a debug build" if "/debug/" in binary else "a release build"
    version = subprocess.check_output([binary, "--version"], text=True).strip()
    return f"{version}, {kind}"


if __name__ == "__main__":
    main()
