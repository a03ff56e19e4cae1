"""What a view of its own costs a run: mode isolated beside mode direct, in folders of several sizes.

    python3 benches/isolated.py --binary PATH [-n ROUNDS] [-o FILE] [--sizes 10,1000,100000]

Standard library only. Replaces its own section of docs/benchmarks.md.
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

import model

REPO = pathlib.Path(__file__).resolve().parent.parent
HEADING = "## Isolated workspaces"
SUBJECTS = {
    "direct": ("direct", "auto"),
    "overlay": ("isolated", "overlay"),
    "copy": ("isolated", "copy"),
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
                    print(f"round {turn}: {name}, {size} files", file=sys.stderr)
                    took = bench.run(name, folder)
                    if turn:  # the first one warms up
                        results.setdefault((size, name), []).append(took)
        text = report(sizes, results, options)
        output = pathlib.Path(options.output)
        page = output.read_text() if output.exists() else ""
        output.write_text(page.replace(kept(page), "").rstrip() + "\n\n" + text)
        print(text)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def kept(page):
    """Our own section of a page that somebody else writes."""
    start = page.find(HEADING)
    if start < 0:
        return ""
    end = page.find("\n## ", start + 1)
    return page[start:] if end < 0 else page[start:end + 1]


class Bench:
    def __init__(self, binary, work):
        self.binary, self.work = binary, work
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

    def run(self, name, folder):
        mode, _ = SUBJECTS[name]
        environment = {
            **os.environ,
            "SANDBOX_MCP_STATE_DIR": str(self.work / "state"),
            "SANDBOX_MCP_CONFIG": str(self.work / f"{name}.toml"),
            "SANDBOX_MCP_MODEL_URL": f"http://127.0.0.1:{self.port}/v1",
        }
        argv = [self.binary, "--quiet", "run", "--json", "--mode", mode, "-"]
        done = subprocess.run(
            argv, cwd=folder, env=environment, input=b"Look around.", capture_output=True
        )
        report = json.loads(done.stdout or "{}")
        view = report.get("workspace", {}).get("view")
        changed = [change["path"] for change in report.get("changes", {}).get("files", [])]
        expected = {"direct": [None], "overlay": ["overlay"], "copy": ["copy", "reflink"]}[name]
        note = folder / "note.txt"
        # In the mode direct the note is there, and goes, so that the next run makes it again.
        if report.get("status") != "completed" or view not in expected or changed != ["note.txt"]:
            sys.exit(f"{name}: {report.get('status')} {view} {changed}\n{done.stderr.decode()}")
        if note.exists() != (mode == "direct"):
            sys.exit(f"{name}: the note is in the wrong place")
        note.unlink(missing_ok=True)
        timing = report["timing"]
        parts = {part: timing[f"{part}_ms"] for part in ("prepare", "boot", "cleanup")}
        return {**parts, "own": sum(parts.values()), "view": view}


def report(sizes, results, options):
    lines = [
        HEADING,
        "",
        "Written by `benches/isolated.py`; do not edit by hand.",
        "",
        "One run's time without the agent's own, in milliseconds: *prepare* (looking for what to "
        "hide or to protect), *boot* (the container, its view or the looks at the folder), "
        "*cleanup* (removal, and telling what changed). The same scripted task in folders of three "
        f"sizes, the modes taking turns, {options.rounds} rounds after one discarded; medians. "
        "*Ratio* is the median of the ratios to direct within each round.",
        "",
        "| files | mode | view | prepare | boot | cleanup | together | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for size in sizes:
        base = results[size, "direct"]
        for name in SUBJECTS:
            runs = results[size, name]
            middle = {
                part: round(statistics.median(run[part] for run in runs))
                for part in ("prepare", "boot", "cleanup", "own")
            }
            ratio = statistics.median(
                run["own"] / other["own"] for run, other in zip(runs, base, strict=True)
            )
            view = runs[0]["view"] or "—"
            lines.append(
                f"| {size:,} | {SUBJECTS[name][0]} | {view} | {middle['prepare']} | "
                f"{middle['boot']} | {middle['cleanup']} | {middle['own']} | {ratio:.2f} × |"
            )
    least, most = sizes[0], sizes[-1]
    own = {size: statistics.median(run["own"] for run in results[size, "overlay"])
           for size in (least, most)}
    lines += [
        "",
        f"From {least:,} to {most:,} files an overlay's share changes by "
        f"{round(own[most] - own[least])} ms. Nothing that is done for it grows with the folder.",
        "",
        f"{datetime.date.today()}, {os.cpu_count()} cores, kernel {platform.release()}, "
        f"load {os.getloadavg()[0]:.1f} at the end; {build(options.binary)}.",
        "",
    ]
    return "\n".join(lines)


def build(binary):
    kind = "a debug build" if "/debug/" in binary else "a release build"
    version = subprocess.check_output([binary, "--version"], text=True).strip()
    return f"{version}, {kind}"


if __name__ == "__main__":
    main()
