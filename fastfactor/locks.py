"""Locks of the operating system on folders. They end with the process that holds them, also when it is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    _CAN_LOCK = False
else:
    _CAN_LOCK = True

LOCK = "fastfactor.lock"
_HOLDER = re.compile(rb"[0-9]{1,20} on [\w.-]{1,255}")

_held: set[int] = set()  # descriptors


def _let_go() -> None:
    """Close what a forked child has inherited: a lock lasts until the last copy of its descriptor is closed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make the folder if there is none; what was made goes away when the block fails and has left nothing in it."""
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


@contextlib.contextmanager
def _keeping(descriptor: int, file: Path | None = None) -> Iterator[None]:
    """Close the descriptor after the block, and first remove the file, unless this is a child forked meanwhile."""
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:
            if file is not None:
                _remove(file, descriptor)
            _held.remove(descriptor)
            os.close(descriptor)


@contextlib.contextmanager
def locking(folder: Path, *, wait: bool, shared: bool = False) -> Iterator[None]:
    """Hold off writers (and, unless `shared`, others who lock), where the system can lock a folder.

    Raises
    ------
    BlockingIOError
        If another process holds the folder, and `wait` is False.
    """
    if not _CAN_LOCK:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    with _keeping(descriptor):
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing to it", str(folder)) from None
        except OSError:  # some network file systems lock no folders
            pass
        yield


@contextlib.contextmanager
def holding(folder: Path, name: str) -> Iterator[None]:
    """Keep the folder for one user, of the argument `name`, for as long as the block takes; make it if there is none.

    A file in it is locked, since each write locks the folder itself, and network file systems lock only what is open
    for writing. Where nothing can be locked or written, nothing is held.

    Raises
    ------
    BlockingIOError
        If another process, or another thread of this one, holds it; the message says which.
    OSError
        If the folder cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(making(folder))
        except OSError as error:
            raise OSError(error.errno, f"{name} cannot be made: {error.strerror}", str(folder)) from error
        descriptor = _take(folder, name) if _CAN_LOCK else None
        if descriptor is not None:
            stack.enter_context(_keeping(descriptor, folder / LOCK))
        yield


def _take(folder: Path, name: str) -> int | None:
    """Return a descriptor of the lock file, which is locked; None where that cannot be."""
    while True:
        try:
            # Never through a link, which may lead to somebody's file.
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError:  # read-only: who finds the fit ended needs no lock, who writes will be told
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(folder / LOCK, descriptor):  # else the holder before has removed it since it was opened
                with contextlib.suppress(OSError):  # a full disk
                    os.truncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} on {os.uname().nodename}".encode(), 0)
                return descriptor
        except BlockingIOError:
            found = _HOLDER.fullmatch(os.pread(descriptor, 300, 0))
            holder = f", process {found[0].decode()}" if found else ""
            os.close(descriptor)
            reason = f"{name} is in use by another fit{holder}"
            raise BlockingIOError(errno.EWOULDBLOCK, reason, str(folder)) from None
        except OSError:  # a file system without locks
            _remove(folder / LOCK, descriptor)
            os.close(descriptor)
            return None
        os.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    return False


def _remove(path: Path, descriptor: int) -> None:
    """Remove the lock file, while it is open: whoever opens it now will see that it is gone, and make another."""
    if _is_there(path, descriptor):
        with contextlib.suppress(OSError):
            path.unlink()
