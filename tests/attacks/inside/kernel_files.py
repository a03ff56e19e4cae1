"""Kernel interfaces that are files. One line for each."""
import errno, glob, os, stat


def reading(path):
    try:
        if os.path.isdir(path):
            return "nothing" if not os.listdir(path) else "SHOWS A FOLDER"
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return "SHOWS SOMETHING" if os.read(descriptor, 64) else "nothing"
        finally:
            os.close(descriptor)
    except OSError:
        return "nothing"


def writing(path):
    """Opens only, except for what belongs to PID 1: some of that may be opened and not written."""
    try:
        if stat.S_ISCHR(os.stat(path).st_mode) and not path.startswith("/dev"):
            return "no"  # covered by /dev/null
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            if path.startswith("/proc/1/"):
                os.write(descriptor, b"0")
        finally:
            os.close(descriptor)
        return "CAN BE WRITTEN"
    except OSError:
        return "no"


def made(path):
    try:
        os.mkdir(path)
        return "COULD BE MADE"
    except OSError:
        return "no"


for path in """/proc/kcore /proc/keys /proc/key-users /proc/timer_list /proc/timer_stats /proc/sched_debug
        /proc/latency_stats /proc/scsi /proc/acpi /proc/asound /proc/interrupts /proc/kmsg /proc/vmcore
        /proc/slabinfo /proc/vmallocinfo /proc/pagetypeinfo /proc/kpagecount /proc/kpageflags
        /proc/cmdline /proc/partitions /proc/diskstats /proc/swaps /proc/modules /proc/config.gz
        /sys/firmware /sys/devices/virtual/powercap /sys/devices/virtual/dmi /sys/class/dmi/id/product_name
        /sys/class/dmi/id/product_uuid /sys/kernel/debug /sys/kernel/tracing /sys/kernel/security
        /sys/fs/bpf /sys/fs/pstore /sys/firmware/efi/efivars /sys/kernel/vmcoreinfo /sys/kernel/notes
        /dev/kmsg /dev/mem /dev/kmem /dev/port /dev/vda /dev/sda /dev/nvme0n1 /dev/dm-0 /dev/kvm
        /dev/net/tun /dev/fuse /dev/vsock /dev/vhost-vsock /dev/vhost-net /dev/loop-control /dev/loop0
        /dev/snapshot /dev/uinput /dev/input /dev/dri /dev/hpet /dev/rtc0 /dev/watchdog /dev/tty0
        /dev/tty1 /dev/cpu/0/msr /dev/userfaultfd /dev/bsg /dev/raw /dev/mapper/control
        /proc/1/mem /proc/1/maps /proc/1/environ /proc/1/auxv /proc/1/fd /proc/1/map_files /proc/1/io
        /proc/1/stack /proc/1/syscall /proc/1/root /proc/1/cwd /proc/1/personality""".split():
    print(f"read {path}: {reading(path)}")

addresses = [line.split()[0] for line in open("/proc/kallsyms")] if os.access("/proc/kallsyms", os.R_OK) else []
print(f"kernel addresses: {sum(int(a, 16) != 0 for a in addresses)}")
memory = [line.split("-")[0].strip() for line in open("/proc/iomem")] if os.access("/proc/iomem", os.R_OK) else []
print(f"physical addresses: {sum(int(a, 16) != 0 for a in memory)}")

for path in """/proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
        /proc/sys/kernel/hostname /proc/sys/kernel/sysrq /proc/sys/kernel/ns_last_pid
        /proc/sys/kernel/yama/ptrace_scope /proc/sys/kernel/poweroff_cmd /proc/sys/kernel/hotplug
        /proc/sys/vm/drop_caches /proc/sys/vm/overcommit_memory /proc/sys/fs/suid_dumpable
        /proc/sys/fs/protected_hardlinks /proc/sys/fs/binfmt_misc/register /proc/sys/fs/binfmt_misc/status
        /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/shmmax
        /proc/irq/default_smp_affinity /proc/mtrr /proc/acpi/wakeup
        /sys/kernel/uevent_helper /sys/power/state /sys/kernel/kexec_crash_size /sys/kernel/mm/ksm/run
        /sys/module/kernel/parameters/panic /proc/1/oom_score_adj /proc/1/oom_adj /proc/1/mem
        /proc/1/comm /proc/1/attr/current /proc/1/coredump_filter /proc/1/timerslack_ns /proc/1/autogroup
        /proc/1/clear_refs /proc/1/loginuid /proc/1/setgroups /proc/1/uid_map""".split():
    print(f"write {path}: {writing(path)}")

# Whatever else there is to write to, without a list.
for root in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/driver", "/proc/tty", "/sys"):
    found, seen = [], 0
    for folder, folders, files in os.walk(root):
        for name in files:
            path, seen = os.path.join(folder, name), seen + 1
            if not os.path.islink(path) and writing(path) != "no":
                found.append(path)
    enough = seen > 100 if root in ("/proc/sys", "/sys") else True
    print(f"writable below {root}: {found}, looked at enough: {enough}")
top = [p for p in glob.glob("/proc/*") if not os.path.basename(p).isdigit() and os.path.isfile(p)
       and not os.path.islink(p)]
print(f"writable in /proc: {[p for p in top if writing(p) != 'no']}")

# Control groups: no new one, no change of the own one, no program run at its end.
print(f"control group made: {[p for p in glob.glob('/sys/fs/cgroup/*') + ['/sys/fs/cgroup'] if made(p + '/x') != 'no']}")
names = "release_agent notify_on_release cgroup.procs tasks memory.max memory.limit_in_bytes pids.max cpu.max devices.allow cgroup.kill cgroup.freeze freezer.state memory.oom_control".split()
groups = [p for n in names for p in glob.glob(f"/sys/fs/cgroup/{n}") + glob.glob(f"/sys/fs/cgroup/*/{n}")]
print(f"control files writable: {[p for p in groups if writing(p) != 'no']}, there are some: {len(groups) > 2}")

try:
    os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000")
    print("protection from the out-of-memory killer: GOT THROUGH")
except OSError:
    print("protection from the out-of-memory killer: denied")

known = set("console core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split())
print(f"other things in /dev: {sorted(set(os.listdir('/dev')) - known)}")
devices = []
for folder, _, files in os.walk("/"):
    if folder.startswith(("/proc", "/sys")):
        continue
    for name in files:
        path = os.path.join(folder, name)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            continue
        if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not path.startswith("/dev/")):
            devices.append(path)
print(f"devices elsewhere, or for blocks: {devices}")

print(f"control read: {reading('/proc/self/status')}, {reading('/proc/meminfo')}, {reading('/sys/kernel')}")
print(f"control write: {writing('/proc/self/comm')}, {writing('/dev/null')}, {writing('/proc/self/timerslack_ns')}")
print(f"control make: {made('/tmp/x')}")
