"""Show folders to this process, and to those it starts, at other paths: bind mounts in a mount namespace of its own.

Linux only (unshare(2), mount(2), user_namespaces(7)); where the process is not root it becomes so in a user namespace.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000  # <sched.h>
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18  # <sys/mount.h>


def mount_all(mounts: Sequence[tuple[str, str, bool]]) -> None:
    """Mount each (folder, path, read-only); a path that is not there is made.

    Raises:
        OSError: this system or user may not; ``filename`` is the path.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    first = mounts[0][1]
    if libc.unshare(_CLONE_NEWNS):
        user, group = os.getuid(), os.getgid()
        _check(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS), first)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), first)
    for source, target, read_only in mounts:
        Path(target).mkdir(parents=True, exist_ok=True)
        _check(libc.mount(source.encode(), target.encode(), None, _MS_BIND | _MS_REC, None), target)
        if read_only:
            flags = _MS_BIND | _MS_REMOUNT | _MS_RDONLY
            _check(libc.mount(b"none", target.encode(), None, flags, None), target)


def _check(result: int, target: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
