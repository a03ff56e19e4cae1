"""Ways to become more than one is. One line for each."""
import ctypes, errno, os, shutil, stat, subprocess

libc = ctypes.CDLL(None, use_errno=True)
me = os.getuid()


def outcome(name, attempt, *wanted):
    try:
        got = attempt()
    except OSError as error:
        code = errno.errorcode.get(error.errno, error.errno)
        print(f"{name}: denied" if not wanted or code in wanted else f"{name}: failed by {code}")
    else:
        print(f"{name}: GOT THROUGH {got}")


def control(name, attempt):
    try:
        attempt()
        print(f"control {name}: works")
    except OSError as error:
        print(f"control {name}: FAILS {error}")


def call(function, *args):
    ctypes.set_errno(0)
    if getattr(libc, function)(*args) < 0:
        raise OSError(ctypes.get_errno(), function)


def run(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise OSError(errno.EPERM, done.stderr)
    return done.stdout.strip()


for line in open("/proc/self/status"):
    key, value = line.split(":", 1)
    if key.startswith("Cap") or key in ("NoNewPrivs", "Seccomp"):
        print(f"{key} {value.strip()}")

# Files that would give rights: by their bits, or by capabilities of their own.
setuid, capable, seen = [], [], 0
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys")]
    for name in files:
        path = os.path.join(folder, name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        seen += 1
        if stat.S_ISREG(mode) and mode & 0o6000:
            setuid.append(path)
        try:
            os.getxattr(path, "security.capability", follow_symlinks=False)
            capable.append(path)
        except OSError:
            pass
print(f"setuid files {setuid}, capable files {capable}, looked at more than 5000: {seen > 5000}")

outcome("setuid 0", lambda: os.setuid(0))
outcome("setresuid 0", lambda: os.setresuid(0, 0, 0))
outcome("setgid 0", lambda: os.setgid(0))
outcome("setgroups 0", lambda: os.setgroups([0]))
outcome("setuid of a neighbour", lambda: os.setuid(me + 1))
outcome("setfsuid 0", lambda: (libc.setfsuid(0), os.stat("/root"), os.listdir("/root")))
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
everything = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
outcome("capset all", lambda: call("capset", header, everything))
outcome("ambient capability", lambda: call("prctl", 47, 2, 21, 0, 0))
outcome("bounding set", lambda: call("prctl", 24, 21, 0, 0, 0))
outcome("securebits", lambda: call("prctl", 28, 0x2F, 0, 0, 0))
outcome("no_new_privs off", lambda: call("prctl", 38, 0, 0, 0, 0))
outcome("filter off", lambda: call("prctl", 22, 0, 0, 0, 0))
outcome("kernel pointers of the process", lambda: call("prctl", 35, 1, 0, 0, 0))

open("plain", "w").close()
outcome("chown to root", lambda: os.chown("plain", 0, 0))
outcome("chgrp to root", lambda: os.chown("plain", -1, 0))
outcome("chown to a neighbour", lambda: os.chown("plain", me + 1, -1))
shutil.copy("/bin/dash", "shell")
outcome("setuid shell", lambda: os.chmod("shell", 0o4755))
outcome("setuid shell in /tmp", lambda: (shutil.copy("/bin/dash", "/tmp/shell"), os.chmod("/tmp/shell", 0o4755)))
outcome("setuid file made", lambda: os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755))
outcome("file capability", lambda: os.setxattr("shell", "security.capability", bytes.fromhex("0100000200000001000000000000000000000000")))
outcome("trusted attribute", lambda: os.setxattr("plain", "trusted.overlay.opaque", b"y"))
outcome("immutable flag", lambda: __import__("fcntl").ioctl(os.open("plain", 0), 0x40086602, (0x10).to_bytes(8, "little")))

outcome("su", lambda: run("su", "-c", "id"))
outcome("mount", lambda: run("mount", "-t", "tmpfs", "none", "/tmp"))
outcome("umount", lambda: run("umount", "/etc/hosts"))
outcome("mount in a user namespace", lambda: run("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/tmp"))
for kind in ("-m", "-u", "-i", "-n", "-p", "-U", "-C", "-T"):
    outcome(f"unshare {kind}", lambda: run("unshare", kind, "true"))
outcome("nsenter of 1", lambda: run("nsenter", "-t", "1", "-m", "-p", "true"))
outcome("chroot", lambda: run("chroot", "/tmp", "true"))
outcome("namespaces of 1", lambda: os.readlink("/proc/1/ns/user"))
outcome("map of users", lambda: os.write(os.open("/proc/self/uid_map", os.O_WRONLY), b"0 0 1"))
outcome("shadow", lambda: open("/etc/shadow").read())
outcome("home of root", lambda: os.listdir("/root"))

control("setuid to oneself", lambda: os.setuid(me))
control("chown to oneself", lambda: os.chown("plain", me, os.getgid()))
control("chmod", lambda: os.chmod("shell", 0o755))
control("a program", lambda: run("./shell", "-c", "true"))
control("own namespaces", lambda: os.readlink("/proc/self/ns/user"))
for name in ("plain", "shell"):
    os.unlink(name)
