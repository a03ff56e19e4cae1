"""Many runs: nothing may grow."""

import collections
import sys
import time

from house import Client

MODES = ["direct", "isolated", "read_only"]


def tally(results):
    counts = collections.Counter(result["status"] for result in results)
    return ", ".join(f"{count} {status}" for status, count in counts.most_common())


def sequential(house, runs):
    client = Client(house, house.workspace("one"))
    results, samples = [], []
    for number in range(runs):
        results.append(client.run("say done", mode=MODES[number % len(MODES)]))
        if number % 50 == 49:
            print(f"{number + 1} runs", file=sys.stderr, flush=True)
        # The first runs fill caches; what grows shows later.
        if number >= min(20, runs // 2) and number % max(1, runs // 20) == 0:
            samples.append((*client.memory_and_files(), len(house.leftovers())))
    resident, files = client.memory_and_files()
    client.close()
    first, last = samples[0], (resident, files)
    good = (
        all(result["status"] == "completed" for result in results)
        and last[0] <= first[0] + 4096
        and last[1] <= first[1] + 2
        and not any(left for _, _, left in samples)
    )
    told = (
        f"{tally(results)}; server's memory {first[0] // 1024} → {last[0] // 1024} MiB, "
        f"open files {first[1]} → {last[1]}, "
        f"containers, volumes and sockets between runs: {max(left for _, _, left in samples)}"
    )
    return good, told


def at_once(house, runs):
    client = Client(house, house.workspace("one"))
    before = client.memory_and_files()
    began = time.monotonic()
    calls = [
        client.start("say done", mode="isolated" if number % 2 else "read_only", background=True)
        for number in range(runs)
    ]
    started = [client.wait(call) for call in calls]
    ids = [result["run_id"] for result in started]
    results = [wait_for(client, run) for run in ids]
    took = time.monotonic() - began
    after = client.memory_and_files()
    client.close()
    good = all(result["status"] == "completed" for result in results) and len(set(ids)) == runs
    good = good and after[1] <= before[1] + 2
    return good, f"{tally(results)} in {took:.0f} s; open files {before[1]} → {after[1]}"


def wait_for(client, run, seconds=600):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = client.run(None, tool="get_run", run_id=run, wait_seconds=30)
        if result["status"] != "running":
            return result
    return {"status": "hangs"}


def two_servers(house):
    clients = [Client(house, house.workspace("one")), Client(house, house.workspace("one"))]
    calls = [
        (client, client.start("echo $RANDOM > here; sleep 0.2", mode=mode))
        for mode in ["direct", "isolated", "direct"]
        for client in clients
    ]
    results = [client.wait(call) for client, call in calls]
    for client in clients:
        client.close()
    return all(result["status"] == "completed" for result in results), tally(results)
