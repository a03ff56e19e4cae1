"""What tells of the machine, its engine and its user. One line for each."""
import os, re, resource, socket, stat, subprocess


def content(path):
    try:
        return open(path, errors="replace").read()
    except OSError:
        return ""


sockets, fifos, seen = [], [], 0
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = [f for f in folders if f not in ("proc", "sys")]
    for name in files:
        path, seen = os.path.join(folder, name), seen + 1
        mode = os.lstat(path).st_mode
        if stat.S_ISSOCK(mode):
            sockets.append(path)
        if stat.S_ISFIFO(mode):
            fifos.append(path)
print(f"sockets {sorted(sockets)}, fifos {fifos}, looked at more than 5000: {seen > 5000}")
abstract = [line.split()[-1] for line in content("/proc/net/unix").splitlines()[1:] if "@" in line]
paths = {line.split()[-1] for line in content("/proc/net/unix").splitlines()[1:] if " /" in line}
print(f"abstract sockets {abstract}, named ones {sorted(paths)}")
for path in ("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock",
             "/run/containerd/containerd.sock", "/run/user/1000/docker.sock", "/run/dbus/system_bus_socket",
             "/run/systemd/private", "/run/systemd/notify", "/tmp/.X11-unix/X0"):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
        print(f"{path}: GOT THROUGH")
    except OSError as error:
        print(f"{path}: absent" if error.errno == 2 else f"{path}: {error}")

print(f"hostname {socket.gethostname()} {os.uname().nodename} {content('/proc/sys/kernel/hostname').strip()}"
      f" {content('/etc/hostname').strip()}, domain {content('/proc/sys/kernel/domainname').strip()}")
print(f"machine id {[content(p) for p in ('/etc/machine-id', '/var/lib/dbus/machine-id', '/etc/hostid')]}")
dmi = [p for p in ("/sys/class/dmi/id", "/sys/devices/virtual/dmi/id", "/sys/firmware/dmi") if os.path.exists(p)]
print(f"dmi {dmi}, boot line {content('/proc/cmdline')!r}")
print(f"hosts {sorted({line.split()[1] for line in content('/etc/hosts').splitlines() if line[:1].isdigit()})}")
print(f"resolvers {re.findall('nameserver .*', content('/etc/resolv.conf'))}")
print(f"users {sorted(line.split(':')[0] for line in content('/etc/passwd').splitlines())}")

# Where mounts come from: the path below the root of its file system, as the kernel shows it.
for line in content("/proc/self/mountinfo").splitlines():
    root, target = line.split()[3:5]
    kind = line.split(" - ")[1].split()[0]
    if root != "/" and kind not in ("proc", "sysfs", "tmpfs", "devpts", "cgroup", "cgroup2", "devtmpfs"):
        print(f"mount source {target} {re.sub('[0-9a-f]{64}', 'ID', root)}")
print(f"control groups {sorted({re.sub('[0-9a-f]{64}', 'ID', line.split(':', 2)[2]) for line in content('/proc/self/cgroup').splitlines()})}")

# Core dumps.
print(f"core limit {resource.getrlimit(resource.RLIMIT_CORE)}")
try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print("core limit raised: GOT THROUGH")
except (OSError, ValueError):
    print("core limit raised: denied")
before = set(os.listdir("."))
crashed = subprocess.run(["sh", "-c", "kill -SEGV $$"], capture_output=True)
print(f"crash by signal {-crashed.returncode}, dumped files {sorted(set(os.listdir('.')) - before)}")
child = os.fork()
if child == 0:
    os.abort()
print(f"dumped by the kernel: {os.WCOREDUMP(os.waitpid(child, 0)[1])}")
