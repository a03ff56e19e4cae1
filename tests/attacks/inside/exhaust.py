"""Uses up one thing after the other and says where it ended. `limits` comes from the test."""
import errno, json, os, resource, subprocess, sys, threading, zipfile

limits = json.load(open("limits.json"))


def fill(path, most):
    """Writes until the file system refuses, and no further than twice its limit."""
    name, block, written = os.path.join(path, "filler"), b"\xa5" * (1 << 20), 0
    try:
        with open(name, "wb", buffering=0) as file:
            while written <= 2 * most:
                written += file.write(block)
        ended = "no end"
    except OSError as error:
        ended = errno.errorcode[error.errno]
    os.unlink(name)
    return f"{ended}, within its size {written <= most}, nearly all of it {written > most * 0.8}"


def sparse(path):
    """A file with a hole of 8 GiB takes no room, but nobody may read it into memory."""
    try:
        with open(os.path.join(path, "hole"), "wb") as file:
            file.truncate(8 << 30)
            os.posix_fallocate(file.fileno(), 0, 8 << 30)
        return "no end"
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.unlink(os.path.join(path, "hole"))


def descriptors():
    held = []
    try:
        while len(held) < 1 << 20:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        ended = errno.errorcode[error.errno]
    for descriptor in held:
        os.close(descriptor)
    return f"{ended}, within its limit {len(held) <= limits['open_files']}"


def processes():
    held, ended = [], "no end"
    try:
        while len(held) < 4 * limits["pids"]:
            pid = os.fork()
            if pid == 0:
                threading.Event().wait()
            held.append(pid)
    except OSError as error:
        ended = errno.errorcode[error.errno]
    for pid in held:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return f"{ended}, within its limit {len(held) <= limits['pids']}"


def raised(kind):
    try:
        soft, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (hard, hard + 1))
        return "RAISED"
    except (OSError, ValueError):
        return "denied"


def bomb():
    """A small archive that unpacks to more than there is."""
    with zipfile.ZipFile("/tmp/bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("zeros", "w", force_zip64=True) as file:
            for _ in range(limits["tmp"] // (1 << 20) + 64):
                file.write(bytes(1 << 20))
    done = subprocess.run(["unzip", "-oq", "/tmp/bomb.zip", "-d", "/tmp/out"], capture_output=True, stdin=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", "/tmp/out", "/tmp/bomb.zip"])
    return "unpacked" if done.returncode == 0 else "ended"


def memory():
    """A child that wants more than there is: the kernel takes it, and nobody else."""
    greedy = "x = []\nwhile True: x.append(bytearray(b'x' * (64 << 20)))"
    done = subprocess.run([sys.executable, "-c", greedy], capture_output=True)
    return "killed" if done.returncode in (-9, 1) else f"ended with {done.returncode}"


for path in ("/tmp", "/home/agent", "/dev/shm"):
    print(f"fill {path}: {fill(path, limits[path])}")
    print(f"hole in {path}: {sparse(path)}")
print(f"zip bomb: {bomb()}")
print(f"descriptors: {descriptors()}")
print(f"processes: {processes()}")
print(f"memory: {memory()}")
for name in ("CORE", "NOFILE"):
    print(f"limit of {name}: {raised(getattr(resource, 'RLIMIT_' + name))}")
for path in ("/", "/usr", "/etc", "/run", "/run/sandbox", "/var/tmp", "/opt", "/dev"):
    try:
        open(path + "/filler", "w").close()
        print(f"write to {path}: WRITTEN")
    except OSError as error:
        print(f"write to {path}: denied")
print("still here")
