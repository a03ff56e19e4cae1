"""Runs of every kind, many of them, with what goes wrong in the field. Bounded in count and time.

    python3 benches/reliability [--binary PATH] [--runs 1000] [--at-once 50] [-o FILE]
                                [--restart-engine] [--jump-clock]

The last two disturb the whole machine and are only done when asked for; they and the small file
systems need root. Writes a table in Markdown, and ends with 1 when anything was not as promised.
"""

import argparse
import os
import pathlib
import platform
import subprocess
import sys
import time

import faults
import many
import model
from house import House, docker

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--binary", default=REPOSITORY / "target/release/sandbox-mcp")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--restart-engine", action="store_true")
    parser.add_argument("--jump-clock", action="store_true")
    parser.add_argument("--only", help="scenarios whose name has this in it")
    parser.add_argument("-o", "--output", type=pathlib.Path)
    options = parser.parse_args()

    binary = str(pathlib.Path(options.binary).resolve())
    house = House(binary, model.start())
    scenarios = [
        ("runs, one after another", lambda: many.sequential(house, options.runs)),
        ("runs at once", lambda: many.at_once(house, options.at_once)),
        ("two servers at once", lambda: many.two_servers(house)),
        ("server killed", lambda: faults.server_killed(house)),
        ("run's own process killed", lambda: faults.owner_killed(house)),
        ("out of memory", lambda: faults.out_of_memory(house)),
        ("state folder removed", lambda: faults.state_removed(house)),
    ]
    if os.geteuid() == 0:
        scenarios += [
            ("disk full: state folder", lambda: faults.state_full(house)),
            ("disk full: workspace", lambda: faults.workspace_full(house)),
        ]
    if options.jump_clock:
        scenarios.append(("clock jumps", lambda: faults.clock_jumps(house)))
    if options.restart_engine:
        restart = lambda: subprocess.run([REPOSITORY / "scripts/engine-up"], check=True)
        scenarios.append(("engine restarted", lambda: faults.engine_restarted(house, restart)))

    rows, failed = [], False
    for name, scenario in scenarios:
        if options.only and options.only not in name:
            continue
        began = time.monotonic()
        try:
            good, told = scenario()
        except Exception as error:  # a scenario that breaks down is a result, and not the last
            good, told = False, f"{type(error).__name__}: {error}"
        try:
            left = house.settle()
        except Exception as error:
            left = [f"what is left could not be looked at: {error}"]
        if left:
            good, told = False, f"{told}; LEFT: {', '.join(left[:5])}"
        failed |= not good
        seconds = time.monotonic() - began
        rows.append(f"| {name} | {'as promised' if good else '**NOT AS PROMISED**'} | {told} | {seconds:.0f} s |")
        print(rows[-1], file=sys.stderr, flush=True)

    version = docker("version", "--format", "{{.Server.Version}}")[0]
    head = [
        f"Docker Engine {version}, Linux {platform.release()}, {os.cpu_count()} cores, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}.",
        "",
        "| what | result | seen | took |",
        "|---|---|---|---|",
    ]
    text = "\n".join([*head, *rows]) + "\n"
    if options.output:
        options.output.write_text(text)
    else:
        print(text, end="")
    if not failed:
        house.remove()
    else:
        print(f"kept for a look: {house.root}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
