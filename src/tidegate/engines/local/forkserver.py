"""The fork server: one process, started by exec, that holds kfp's executor and forks a child per step.

Messages are JSON lines over a socket: a job (see ``process.Job``) with its ``id`` in, ``{"id", "pid"}`` and ``{"id",
"exit"}`` out. When the other side hangs up, every process below the server is killed: on Linux it adopts orphans, so a
daemon that left its group and session is among them. It imports only modules of the allow-list
(``process.FORK_SAFE``), never a user's, and opens no store: a child forked after such libraries were *used* can hang.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tidegate.author import step
from tidegate.engines.local.mount import mount_all
from tidegate.engines.local.process import GRACE, end_group


def main() -> None:
    """Serve the socket whose file descriptor is the first argument."""
    gc.disable()  # what is imported here stays, and a child that shares it does not look at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _adopt_orphans()
    _import("kfp.dsl.executor")
    _import("shutil")  # argparse's, in every child that has to import it by itself
    with socket.socket(fileno=int(sys.argv[1])) as sock:
        _serve(sock)
    os._exit(0)  # nothing is left to put away


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        pr_set_child_subreaper = 36  # <linux/prctl.h>
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def _serve(sock: socket.socket) -> None:
    wake_read, wake_write = os.pipe()
    for fd in (wake_read, wake_write):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    waiting = b""
    while True:
        ready, _, _ = select.select([sock.fileno(), wake_read], [], [])
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(sock, children)
        if sock.fileno() in ready:
            data = sock.recv(1 << 20)
            if not data:
                return _end_all(children)
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                _start(json.loads(line), sock, children)


def _start(job: dict[str, Any], sock: socket.socket, children: dict[int, int]) -> None:
    for name in () if job["fresh"] else job["imports"]:
        _import(name)
    gc.freeze()
    pid = os.fork()
    if not pid:
        _child(job, sock)
    children[pid] = job["id"]
    _say(sock, {"id": job["id"], "pid": pid})


def _import(name: str) -> None:
    # a module that cannot be imported is the step's problem, in the step's log
    with contextlib.suppress(Exception):
        importlib.import_module(name)


def _child(job: dict[str, Any], sock: socket.socket) -> None:
    code = 1
    gc.enable()
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for name in (signal.SIGINT, signal.SIGCHLD):
            signal.signal(name, signal.SIG_DFL)
        sock.close()
        _redirect(job["log"])
        _confine(job)
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["env"])
        if program := job["program"] or (job["fresh"] and [sys.executable, "-m", "tidegate.author.step", *job["args"]]):
            _exec(program)
        _limit_threads(job["threads"])
        _reseed()
        code = step.main(job["args"])
        _finish_threads()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _exec(program: list[str]) -> None:
    try:
        os.execvpe(program[0], program, os.environ)
    except OSError as e:
        print(f"tidegate: cannot run {program[0]!r}: {e.strerror}", file=sys.stderr, flush=True)
        os._exit(126 if isinstance(e, PermissionError) else 127)


def _confine(job: dict[str, Any]) -> None:
    if job["cores"] and sys.platform == "linux":
        cores = sorted(os.sched_getaffinity(0))
        first = job["id"] % len(cores)
        os.sched_setaffinity(0, ([*cores, *cores])[first : first + max(1, math.ceil(job["cores"]))])
    if job["mounts"]:
        try:
            mount_all(job["mounts"])
        except OSError as e:
            print(f"tidegate: cannot mount {e.filename}: {e.strerror}", file=sys.stderr, flush=True)
            os._exit(125)


def _finish_threads() -> None:
    """What an interpreter does before it ends: wait for threads, run exit handlers."""
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()


def _redirect(log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for fd, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(fd, target)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def _limit_threads(threads: int) -> None:
    # libraries loaded before the fork read OMP_NUM_THREADS long ago
    if "numpy" in sys.modules and importlib.util.find_spec("threadpoolctl"):
        importlib.import_module("threadpoolctl").threadpool_limits(threads)


def _reseed() -> None:
    # every child would otherwise draw the server's numbers; Python's own generator reseeds itself
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()


def _reap(sock: socket.socket, children: dict[int, int]) -> None:
    while children:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        end_group(ended.si_pid, signal.SIGKILL)
        _, status = os.waitpid(ended.si_pid, 0)
        if ended.si_pid in children:
            _say(sock, {"id": children.pop(ended.si_pid), "exit": os.waitstatus_to_exitcode(status)})


def _end_all(children: dict[int, int]) -> None:
    """Kill every process below this one, and see it gone: what is killed may have children that are adopted then."""
    for pid in children:
        end_group(pid, signal.SIGKILL)
    end = time.monotonic() + GRACE
    while _has_child() and (left := _below(os.getpid())) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.002)


def _has_child() -> bool:
    """Whether any process is below this one; to look through /proc takes longer than most steps."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _below(pid: int) -> list[int]:
    """The processes below one, from /proc; none where there is no /proc."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, todo = [], [pid]
    while todo:
        children = [c for c, p in parents.items() if p == todo[-1]]
        todo = [*todo[:-1], *children]
        found += children
    return found


def _say(sock: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
