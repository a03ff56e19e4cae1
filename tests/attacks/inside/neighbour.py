"""`stay` makes one of each and waits; `hunt` looks for all of them."""
import ctypes, json, os, re, socket, subprocess, sys, threading, time

MARK, PORT = "neighbours-mark", 47771
libc = ctypes.CDLL(None, use_errno=True)


def stay():
    open("/tmp/" + MARK, "w").write(MARK)
    open("/dev/shm/" + MARK, "w").write(MARK)
    open("/home/agent/" + MARK, "w").write(MARK)
    server = socket.create_server(("127.0.0.1", PORT))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0" + MARK)
    abstract.listen()
    libc.shmget(0x5AFE, 4096, 0o1666)
    libc.mq_open(b"/" + MARK.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    process = subprocess.Popen(["sleep", "47771"])
    # The kernel shows the words of a process a moment after its start.
    while not open(f"/proc/{process.pid}/cmdline").read():
        time.sleep(0.01)
    return server, abstract, process


def hunt(name):
    def tell(what, seen):
        print(f"{name} {what}: {'SEEN' if seen else 'unseen'}", flush=True)

    def connects(family, address):
        with socket.socket(family) as client:
            return client.connect_ex(address) == 0

    tell("file in /tmp", os.path.exists("/tmp/" + MARK))
    tell("file in shared memory", os.path.exists("/dev/shm/" + MARK))
    tell("file at home", os.path.exists("/home/agent/" + MARK))
    tell("port", connects(socket.AF_INET, ("127.0.0.1", PORT)))
    tell("abstract socket", connects(socket.AF_UNIX, "\0" + MARK))
    tell("abstract socket listed", MARK in open("/proc/net/unix").read())
    tell("port listed", f":{PORT:04X} " in open("/proc/net/tcp").read())
    tell("System V memory", libc.shmget(0x5AFE, 0, 0) >= 0)
    tell("message queue", libc.mq_open(b"/" + MARK.encode(), os.O_RDWR) >= 0)
    commands = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            commands.append(open(f"/proc/{pid}/cmdline").read())
        except OSError:
            pass
    tell("process", any(line == "sleep\00047771\0" for line in commands))
    sockets = [os.path.join(f, n) for f, _, ns in os.walk("/run") for n in ns if n.endswith(".sock")]
    print(f"{name} sockets: {sorted(sockets)}")
    above = [p for p in ("/run/sandbox/..", "/run/sandbox/../..", "/workspace/..") for n in os.listdir(p) if re.match(r"(sw|sm)-|\d{8}-\d{6}-", n)]
    print(f"{name} folders of other runs: {above}")


if sys.argv[1] == "stay":
    held = stay()
    hunt("own")
    open("ready", "w").close()
    for _ in range(600):
        if os.path.exists("stop"):
            break
        time.sleep(0.1)
else:
    hunt("other")
