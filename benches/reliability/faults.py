"""What goes wrong in the field. Each has to end in a typed result, and nothing may hang."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from house import Client, docker
from many import wait_for

TYPED = {
    "completed", "failed", "timed_out", "cancelled", "out_of_memory", "model_unreachable",
    "model_error", "no_output", "truncated", "budget_exhausted", "sandbox_error",
}


def working(house, client, task="sleep 600", **arguments):
    """Starts a run in the background and returns its id once its agent is at work."""
    run = client.run(task, background=True, **arguments)["run_id"]
    events = house.root / "state/runs" / run / "events.jsonl"
    for _ in range(600):
        if events.exists() and "tool_started" in events.read_text():
            return run
        time.sleep(0.1)
    raise TimeoutError(f"the agent of run {run} does not work")


def next_run(client):
    return client.run("say done", mode="isolated")["status"]


def server_killed(house):
    folder = house.workspace("one")
    client = Client(house, folder)
    run = working(house, client, "sleep 5; echo later > later", mode="isolated")
    call = client.start("sleep 600", mode="direct")
    time.sleep(4)
    client.kill()
    call.get(timeout=10)
    after = Client(house, folder)
    result = wait_for(after, run)
    again = next_run(after)
    after.close()
    good = result["status"] == "completed" and again == "completed"
    return good, f"background run found again: {result['status']}; next run {again}"


def owner_killed(house):
    client = Client(house, house.workspace("one"))
    run = working(house, client, mode="isolated")
    owner = (house.root / "state/runs" / run / "owner").read_text().split(".")[0]
    os.kill(int(owner), signal.SIGKILL)
    result = wait_for(client, run)
    again = next_run(client)
    client.close()
    return result["status"] not in ("running", "hangs") and again == "completed", (
        f"the run: {result['status']}; next run {again}"
    )


def out_of_memory(house):
    client = Client(house, house.workspace("one"))
    # Of the tool first, which the agent survives or not; either way it is told.
    result = client.run("perl -e '$x = q(x) x 8e9; sleep 9'", mode="isolated")
    again = next_run(client)
    client.close()
    good = result["status"] in ("completed", "out_of_memory", "failed") and again == "completed"
    return good, f"{result['status']}; next run {again}"


def state_removed(house):
    client = Client(house, house.workspace("one"))
    call = client.start("sleep 6; echo here > here", mode="direct")
    time.sleep(4)
    shutil.rmtree(house.root / "state")
    result = client.wait(call)
    again = next_run(client)
    client.close()
    good = result["status"] in TYPED and again == "completed"
    return good, f"{result['status']}; next run {again}"


@contextlib.contextmanager
def small(folder, size):
    folder.mkdir(exist_ok=True)
    options = f"size={size},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def state_full(house):
    state = house.root / "state"
    kept = sorted(state.glob("*"))
    with small(state, "192k"):
        for one in kept:
            if one.is_file():
                shutil.copy(one, state)
        client = Client(house, house.workspace("one"))
        statuses = [client.run("head -c 2000000 /dev/zero > big", mode="isolated")["status"]]
        fill = state / "fill"
        with contextlib.suppress(OSError), open(fill, "wb") as file:
            while True:
                file.write(b"x" * 4096)
        statuses.append(client.run("say done", mode="direct")["status"])
        fill.unlink()
        client.close()
    typed = all(status in TYPED | {"refused"} for status in statuses)
    client = Client(house, house.workspace("one"))
    again = next_run(client)
    client.close()
    return typed and again == "completed", f"{' and '.join(statuses)}; next run {again}"


def workspace_full(house):
    folder = house.root / "tiny"
    with small(folder, "2m"):
        os.chown(folder, 1000, 1000)
        client = Client(house, folder)
        result = client.run("head -c 9000000 /dev/zero > big", mode="direct")
        client.close()
    return result["status"] in TYPED, result["status"]


def clock_jumps(house):
    client = Client(house, house.workspace("one"))
    statuses = []
    for jump in (7200, -7200):
        call = client.start("sleep 4", mode="isolated")
        time.sleep(2.5)
        turn_clock(jump)
        try:
            statuses.append(client.wait(call)["status"])
        finally:
            turn_clock(-jump)
        statuses.append(next_run(client))
    client.close()
    # The agent's own messages are ordered by the clock: put back, it asks the model the same again
    # until the budget for requests ends it. That verdict is true.
    may_be = [("completed",), ("completed",), ("completed", "budget_exhausted"), ("completed",)]
    good = all(status in allowed for status, allowed in zip(statuses, may_be, strict=True))
    return good, "2 h forward: {}, next {}; 2 h back: {}, next {}".format(*statuses)


def turn_clock(seconds):
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME) + seconds)


def engine_restarted(house, restart):
    pidfile = pathlib.Path("/run/sandbox-mcp/dockerd.pid")
    client = Client(house, house.workspace("one"))
    run = working(house, client, "echo kept > kept; sleep 600", mode="isolated")
    pid = int(pidfile.read_text())
    os.kill(pid, signal.SIGTERM)
    while pathlib.Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    restart()
    result = wait_for(client, run, 120)
    again = next_run(client)
    client.close()
    kept = [file["path"] for file in result["changes"]["files"]]
    good = result["status"] in TYPED and kept == ["kept"] and again == "completed"
    return good, f"the run: {result['status']}, its changes {', '.join(kept) or 'lost'}; next run {again}"
