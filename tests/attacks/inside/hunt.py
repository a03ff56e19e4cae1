"""Looks for a word everywhere: environments, arguments, mounts, files, memory of other processes.
Prints where, one line for each place. The word is never written in one piece."""
import os, re, subprocess, sys

word = "".join(sys.argv[1:]).encode()
me = str(os.getpid())
planted = subprocess.Popen(["sleep", "1000"], env={"PLANTED": word.decode()})
found, looked = set(), {"files": 0, "processes": 0, "memory": 0}


def holds(path, keep=1 << 20):
    try:
        with open(path, "rb", buffering=0) as file:
            tail = b""
            while chunk := file.read(keep):
                if word in tail + chunk:
                    return True
                tail = chunk[-len(word):]
    except OSError:
        pass
    return False


def memory(pid):
    """What /proc lets the same user read, whatever the filter says about ptrace."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        for line in maps:
            span, rights = line.split()[:2]
            if "r" not in rights or "[v" in line:
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            for at in range(start, min(end, start + (256 << 20)), 4 << 20):
                try:
                    mem.seek(at)
                    looked["memory"] += 1
                    if word in mem.read(min(4 << 20, end - at)):
                        return True
                except (OSError, ValueError, OverflowError):
                    break
    return False


for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid == me:
        continue
    try:
        name = open(f"/proc/{pid}/comm").read().strip()
    except OSError:
        continue
    name = "planted" if pid == str(planted.pid) else re.sub(r"[^A-Za-z.-]", "", name)
    looked["processes"] += 1
    for part in ("environ", "cmdline", "mountinfo", "cgroup", "auxv", "limits", "status"):
        if holds(f"/proc/{pid}/{part}"):
            found.add(f"{part} of {name}")
    try:
        if memory(pid):
            found.add(f"memory of {name}")
    except OSError:
        pass
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [f for f in folders if f not in ("proc", "sys")]
    for name in files:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            looked["files"] += 1
            if word in name.encode() or holds(path):
                found.add(f"file {path}")
for path in ("/proc/net/unix", "/proc/net/tcp", "/proc/keys", "/proc/cmdline", "/proc/mounts", "/proc/sys/kernel/random/boot_id"):
    if holds(path):
        found.add(f"file {path}")
planted.kill()
print(f"found {sorted(found)}")
print(f"looked at files {looked['files'] > 5000}, processes {looked['processes'] > 3}, memory {looked['memory'] > 100}")
