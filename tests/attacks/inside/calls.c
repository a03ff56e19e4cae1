/* System calls by their numbers, each in a process of its own. One line for each:
 *
 *   NAME: refused EPERM | absent ENOSYS     the filter answered
 *   NAME: REACHED THE KERNEL (ERRNO)        denied, but not by the filter
 *   NAME: GOT THROUGH
 *   control NAME: works | FAILS (ERRNO)     what must work
 *
 * The arguments are harmless where the kernel takes them: null pointers, bad magic numbers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile struct { long result; int error; } *told;
static char scratch[4096];

/* 0: done; else the signal that ended the attempt. */
static int attempt(long number, const long *a) {
    fflush(stdout);
    told->result = -2;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(5);
        errno = 0;
        long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        /* A call that forks comes back twice. */
        if (result == 0 && getpid() != child && told->result == 0) _exit(0);
        told->error = errno;
        told->result = result;
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static const char *verdict(long number, const long *a) {
    static char text[64];
    int stopped = attempt(number, a);
    if (stopped) snprintf(text, sizeof text, "ended by signal %d", stopped);
    else if (told->result != -1) snprintf(text, sizeof text, "GOT THROUGH");
    else if (told->error == EPERM) snprintf(text, sizeof text, "refused EPERM");
    else if (told->error == ENOSYS) snprintf(text, sizeof text, "absent ENOSYS");
    else snprintf(text, sizeof text, "REACHED THE KERNEL (%s)", strerrorname_np(told->error));
    return text;
}

#define ARGS(...) ((const long[6]){__VA_ARGS__})
#define PROBE(name, number, ...) \
    printf("%s: %s\n", name, verdict(number, ARGS(__VA_ARGS__)))
#define CALL(call, ...) PROBE(#call, SYS_##call, __VA_ARGS__)

static void control(const char *name, long number, const long *a) {
    int stopped = attempt(number, a);
    if (!stopped && told->result >= 0) printf("control %s: works\n", name);
    else printf("control %s: FAILS (signal %d, %s)\n", name, stopped, strerrorname_np(told->error));
}
#define CONTROL(name, number, ...) control(name, number, ARGS(__VA_ARGS__))

/* Many calls in one line: the common verdict, or the first ones that are not like `wanted`. */
static int odd;
static void start(const char *name) { odd = 0; printf("%s:", name); }
static void each(const char *wanted, long which, long number, const long *a) {
    const char *got = verdict(number, a);
    if (strcmp(got, wanted) && odd++ < 5) printf(" [%ld %s]", which, got);
}
static void finish(const char *wanted) { printf(odd ? " DIFFER\n" : " all %s\n", wanted); }

static void memory_of_others(void) {
    long parent = getppid();
    PROBE("ptrace traceme", SYS_ptrace, 0);
    PROBE("ptrace seize", SYS_ptrace, 0x4206, parent);
    CALL(process_vm_readv, parent, (long)scratch, 0, (long)scratch, 0, 0);
    CALL(process_vm_writev, parent, (long)scratch, 0, (long)scratch, 0, 0);
    CALL(kcmp, getpid(), getpid(), 2, 0, 0);
    CALL(pidfd_getfd, -1, 0, 0);
    CALL(process_madvise, -1, 0, 0, 0, 0);
    PROBE("process_mrelease", 448, -1, 0);
    CALL(move_pages, 0, 0, 0, 0, 0, 0);
    CALL(migrate_pages, 0, 0, 0, 0);
}

static void kernel_surface(void) {
    PROBE("userfaultfd", SYS_userfaultfd, 0);
    PROBE("userfaultfd user mode", SYS_userfaultfd, 1);
    CALL(perf_event_open, 0, 0, -1, -1, 0);
    CALL(bpf, 0, 0, 0);
    CALL(io_uring_setup, 1, 0);
    CALL(io_uring_enter, -1, 0, 0, 0, 0, 0);
    CALL(io_uring_register, -1, 0, 0, 0);
    CALL(keyctl, 0, -3, 0);
    CALL(add_key, (long)"user", (long)"canary", (long)"x", 1, -3);
    CALL(request_key, (long)"user", (long)"canary", 0, 0);
    PROBE("personality no randomisation", SYS_personality, 0x40000);
    PROBE("personality read implies exec", SYS_personality, 0x400000);
    PROBE("personality 32 bits", SYS_personality, 8);
    CALL(lookup_dcookie, 0, 0, 0);
    CALL(get_mempolicy, 0, 0, 0, 0, 0);
    CALL(set_mempolicy, 0, 0, 0);
    CALL(mbind, 0, 0, 0, 0, 0, 0);
    PROBE("memfd_secret", 447, 0);
    PROBE("cachestat", 451, -1, 0, 0, 0);
    PROBE("statmount", 457, 0, 0, 0, 0);
    PROBE("listmount", 458, 0, 0, 0, 0);
    PROBE("lsm_list_modules", 461, 0, 0, 0);
    PROBE("open_tree_attr", 467, -1, (long)"", 0, 0, 0);
}

static void mounts(void) {
    CALL(mount, (long)"none", (long)"/tmp", (long)"tmpfs", 0, 0);
    PROBE("mount bind", SYS_mount, (long)"/workspace", (long)"/tmp", 0, 4096, 0);
    PROBE("mount remount", SYS_mount, 0, (long)"/", 0, 32, 0);
    CALL(umount2, (long)"/proc/kcore", 2);
    CALL(fsopen, (long)"tmpfs", 0);
    CALL(fsconfig, -1, 0, 0, 0, 0);
    CALL(fsmount, -1, 0, 0);
    CALL(fspick, -100, (long)"/", 0);
    CALL(open_tree, -100, (long)"/", 1);
    CALL(move_mount, -1, (long)"", -1, (long)"", 0);
    PROBE("mount_setattr", 442, -100, (long)"/", 0, 0, 0);
    CALL(pivot_root, (long)"/tmp", (long)"/tmp");
    CALL(chroot, (long)"/tmp");
    CALL(name_to_handle_at, -100, (long)"/", (long)scratch, (long)(scratch + 2048), 0);
    CALL(open_by_handle_at, -100, (long)scratch, 0);
    CALL(fanotify_init, 0, 0);
    CALL(fanotify_mark, -1, 0, 0, 0, 0);
    CALL(openat2, -100, (long)"/", (long)scratch, 24);
}

static void the_machine(void) {
    CALL(kexec_load, 0, 0, 0, -1);
    CALL(kexec_file_load, -1, -1, 0, 0, -1);
    CALL(init_module, 0, 0, 0);
    CALL(finit_module, -1, 0, 0);
    CALL(delete_module, (long)"no_such_module", 0);
    CALL(swapon, 0, 0);
    CALL(swapoff, 0);
    CALL(quotactl, 0, 0, 0, 0);
    PROBE("quotactl_fd", 443, -1, 0, 0, 0);
    CALL(clock_settime, 0, 0);
    CALL(settimeofday, 0, 0);
    CALL(adjtimex, 0);
    CALL(clock_adjtime, 0, 0);
    CALL(reboot, 1, 2, 3, 0);
    CALL(acct, (long)"/no/such/file");
    CALL(syslog, 3, (long)scratch, 100);
    CALL(sethostname, 0, -1);
    CALL(setdomainname, 0, -1);
    CALL(vhangup, 0);
}

static void namespaces(void) {
    static const struct { const char *name; long flag; } kinds[] = {
        {"mount", CLONE_NEWNS}, {"cgroup", CLONE_NEWCGROUP}, {"uts", CLONE_NEWUTS},
        {"ipc", CLONE_NEWIPC}, {"user", CLONE_NEWUSER}, {"pid", CLONE_NEWPID},
        {"network", CLONE_NEWNET}, {"time", 0x80},
    };
    char name[64];
    for (unsigned at = 0; at < 8; at++) {
        snprintf(name, sizeof name, "unshare %s", kinds[at].name);
        PROBE(name, SYS_unshare, kinds[at].flag);
        snprintf(name, sizeof name, "clone %s", kinds[at].name);
        if (at < 7) PROBE(name, SYS_clone, kinds[at].flag | SIGCHLD, 0, 0, 0, 0);
    }
    PROBE("clone user with high bits", SYS_clone, CLONE_NEWUSER | SIGCHLD | 1L << 40, 0, 0, 0, 0);
    PROBE("clone user and mount", SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
    long arguments[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    PROBE("clone3 user", 435, (long)arguments, 64);
    long plain[11] = {0, 0, 0, 0, SIGCHLD};
    PROBE("clone3 without flags", 435, (long)plain, 64);
    int own = open("/proc/self/ns/user", O_RDONLY);
    PROBE("setns", SYS_setns, own, CLONE_NEWUSER);
    CONTROL("clone without flags", SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void sockets(void) {
    const char *refused = "refused EPERM";
    start("socket of any other family");
    for (long family = 0; family < 64; family++)
        if (family != 1 && family != 2 && family != 10 && family != 16)
            for (long kind = 1; kind < 6; kind++)
                each(refused, family, SYS_socket, ARGS(family, kind, 0));
    finish(refused);
    start("socket of AF_ALG or AF_VSOCK with high bits");
    each(refused, 38, SYS_socket, ARGS(1L << 32 | 38, 5, 0));
    each(refused, 40, SYS_socket, ARGS(1L << 32 | 40, 1, 0));
    finish(refused);
    start("socket pair of any other family");
    for (long family = 0; family < 64; family++)
        if (family != 1) each(refused, family, SYS_socketpair, ARGS(family, 1, 0, (long)scratch));
    finish(refused);
    start("raw, packet, dccp and seqpacket over ip");
    for (long family = 2; family <= 10; family += 8)
        for (long kind = 3; kind < 16; kind++)
            for (long protocol = 0; protocol < 18; protocol++)
                each(refused, kind, SYS_socket, ARGS(family, kind, protocol));
    finish(refused);
    start("any other protocol over ip");
    for (long family = 2; family <= 10; family += 8)
        for (long kind = 1; kind < 3; kind++)
            for (long protocol = 1; protocol < 300; protocol++)
                if (protocol != (kind == 1 ? 6 : 17))
                    each(refused, protocol, SYS_socket, ARGS(family, kind, protocol));
    finish(refused);
    start("netlink beyond route");
    for (long protocol = 1; protocol < 32; protocol++)
        each(refused, protocol, SYS_socket, ARGS(16, 3, protocol));
    finish(refused);
    CONTROL("unix socket", SYS_socket, 1, 1, 0);
    CONTROL("unix pair", SYS_socketpair, 1, 1, 0, (long)scratch);
    CONTROL("tcp", SYS_socket, 2, 1 | 02000000, 0);
    CONTROL("tcp over 6", SYS_socket, 10, 1, 6);
    CONTROL("udp", SYS_socket, 2, 2, 17);
    CONTROL("route netlink", SYS_socket, 16, 3, 0);
}

static void files(void) {
    const long here = AT_FDCWD;
    PROBE("character device", SYS_mknodat, here, (long)"/tmp/dev1", S_IFCHR | 0600, makedev(1, 1));
    PROBE("block device", SYS_mknodat, here, (long)"/tmp/dev2", S_IFBLK | 0600, makedev(254, 0));
    PROBE("whiteout", SYS_mknodat, here, (long)"/tmp/dev3", S_IFCHR | 0600, 0);
    PROBE("node with setuid", SYS_mknodat, here, (long)"/tmp/dev4", S_IFREG | 04700, 0);
    close(open("/tmp/plain", O_CREAT | O_RDWR, 0600));
    PROBE("rename with a whiteout", SYS_renameat2, here, (long)"/tmp/plain", here, (long)"/tmp/p2", 4);
    PROBE("chmod setuid", SYS_fchmodat, here, (long)"/tmp/plain", 04755);
    PROBE("fchmod setuid", SYS_fchmod, 1, 04755);
    PROBE("fchmodat2 setuid", 452, here, (long)"/tmp/plain", 04755, 0);
    PROBE("create setuid", SYS_openat, here, (long)"/tmp/s", O_CREAT | O_WRONLY, 04755);
    PROBE("unnamed setuid", SYS_openat, here, (long)"/tmp", O_TMPFILE | O_WRONLY, 04755);
    PROBE("create setuid with high bits", SYS_openat, here, (long)"/tmp/s",
          1L << 40 | O_CREAT | O_WRONLY, 1L << 40 | 04755);
    CONTROL("chmod", SYS_fchmodat, here, (long)"/tmp/plain", 01755);
    CONTROL("create", SYS_openat, here, (long)"/tmp/c", O_CREAT | O_WRONLY, 0755);
    CONTROL("open with a mode that does not count", SYS_openat, here, (long)"/", O_RDONLY, 04755);
    CONTROL("fifo", SYS_mknodat, here, (long)"/tmp/fifo", S_IFIFO | 0600, 0);
    CONTROL("rename", SYS_renameat2, here, (long)"/tmp/plain", here, (long)"/tmp/p2", 1);
}

static void processes(void) {
    long limit[2] = {0, 0};
    PROBE("prlimit64 of another", SYS_prlimit64, 1, 7, (long)limit, 0);
    CALL(sched_setscheduler, 1, 5, (long)limit);
    CALL(sched_setattr, 1, (long)limit, 0);
    CALL(sched_setparam, 1, (long)limit);
    PROBE("setpriority of another", SYS_setpriority, 0, 1, 19);
    PROBE("setpriority of a user", SYS_setpriority, 2, 0, 19);
    PROBE("ioprio_set of another", SYS_ioprio_set, 1, 1, 3 << 13);
    CONTROL("prlimit64 of the caller", SYS_prlimit64, 0, 7, 0, (long)limit);
    CONTROL("setpriority of the caller", SYS_setpriority, 0, 0, 19);
    CONTROL("personality asked", SYS_personality, 0xffffffff);
    CONTROL("getpid", SYS_getpid);
}

#ifdef __x86_64__
static void old_numbers(void) {
    PROBE("iopl", SYS_iopl, 3);
    PROBE("ioperm", SYS_ioperm, 0, 1, 1);
    PROBE("modify_ldt", SYS_modify_ldt, 0, (long)scratch, 16);
    PROBE("uselib", SYS_uselib, 0);
    PROBE("ustat", SYS_ustat, 0, 0);
    PROBE("sysfs", SYS_sysfs, 3);
    PROBE("remap_file_pages", SYS_remap_file_pages, 0, 0, 0, 0, 0);
    PROBE("mknod whiteout", SYS_mknod, (long)"/tmp/dev5", S_IFCHR | 0600, 0);
    PROBE("open setuid", SYS_open, (long)"/tmp/s", O_CREAT | O_WRONLY, 04755);
    PROBE("creat setuid", SYS_creat, (long)"/tmp/s", 04755);
    /* getpid, unshare and mount by the numbers of the x32 ABI. */
    static const long x32[] = {39, 272, 165, 101};
    for (int at = 0; at < 4; at++) {
        int stopped = attempt(0x40000000 | x32[at], ARGS(CLONE_NEWUSER));
        int through = !stopped && (told->result != -1 || told->error != ENOSYS);
        printf("x32 call %ld: %s\n", x32[at], through ? "GOT THROUGH" : "stopped");
    }
    /* getpid, unshare, mount and ptrace as a 32-bit program would call them. */
    static const long i386[] = {20, 310, 21, 26};
    for (int at = 0; at < 4; at++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            long result;
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(i386[at]), "b"(0x10000000L) : "memory");
            _exit(result == -EPERM || result == -ENOSYS ? 1 : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        printf("int 0x80 call %ld: %s\n", i386[at],
               WIFSIGNALED(status) || WEXITSTATUS(status) ? "stopped" : "GOT THROUGH");
    }
}
#endif

int main(void) {
    told = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory_of_others();
    kernel_surface();
    mounts();
    the_machine();
    namespaces();
    sockets();
    files();
    processes();
#ifdef __x86_64__
    old_numbers();
#endif
    PROBE("a number of the future", 4000);
    puts("done");
    return 0;
}
