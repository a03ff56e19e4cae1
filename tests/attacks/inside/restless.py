"""Processes that must not write while they are paused, each in its own way. Every one of them writes
one number to fifty files in turn: at any moment the first have it and the rest the one before."""

import ctypes
import os
import signal
import subprocess
import threading

FILES = 50


def count(name, between=lambda: None):
    os.makedirs(name, exist_ok=True)
    files = [os.open(f"{name}/{n}", os.O_CREAT | os.O_WRONLY) for n in range(FILES)]
    number = 0
    while True:
        for file in files:
            os.pwrite(file, b"%08d\n" % number, 0)
        number += 1
        between()


def without_its_first_thread():
    threading.Thread(target=count, args=("headless",)).start()
    # The thread alone ends, and not the process.
    ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)


def waking_all_others():
    def wake():
        while True:
            for pid in filter(str.isdigit, os.listdir("/proc")):
                try:
                    os.kill(int(pid), signal.SIGCONT)
                except OSError:
                    pass

    threading.Thread(target=wake, daemon=True).start()
    count("waking")


def forking():
    def fork():
        if os.fork() != 0:
            os._exit(0)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    count("forking", fork)


def waiting_for_vforks():
    count("vforking", lambda: subprocess.run(["/bin/true"]))


for work in [without_its_first_thread, waking_all_others, forking, waiting_for_vforks]:
    if os.fork() == 0:
        os.setsid()
        work()
