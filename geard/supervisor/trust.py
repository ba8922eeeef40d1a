"""Whose control socket we talk to, and where we make one: in /tmp anybody can make anything.

Rules:
- We talk to ourselves and to root. Root also talks to whom root has given the directory that holds the socket: the user
  of a service, whose RuntimeDirectory it is.
- In a directory that others may write to a name proves nothing, unless the directory is sticky; then it is its owner's.
- What the name promises the kernel must confirm: who listens (SO_PEERCRED) is one of the same.
- What is no socket, or somebody else's, is never removed.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
import struct
from typing import Final

from geard.errors import CannotConnect

ROOT: Final = 0
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Untrusted(CannotConnect):
    """The socket could be somebody else's: nothing was sent. Ask as its owner, or name another with --socket."""


def owners_of(path: str, uid: int) -> frozenset[int]:
    """The users that may listen on this path for us, who are `uid`.

    Raises OSError where there is nothing, Untrusted where what is there could be another's."""
    real = os.path.realpath(path)
    owners = {uid, ROOT}
    if uid == ROOT and _given_by_root(os.path.dirname(real)):
        owners.add(os.stat(os.path.dirname(real)).st_uid)
    for name in {path, real}:
        check_directory(name)
        owner = os.lstat(name).st_uid
        if owner not in owners:
            raise Untrusted(f"{name} belongs to {user_name(owner)}")
    if not stat.S_ISSOCK(os.stat(real).st_mode):
        raise Untrusted(f"{path} is not a socket")
    return frozenset(owners)


def check_directory(path: str) -> None:
    """Raise Untrusted where anybody could put what they like in the place of `path`, OSError where there is no such."""
    directory = os.path.dirname(path) or "."
    mode = os.stat(directory).st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise Untrusted(f"{path}: anybody may write to {directory} (chmod o-w, or the sticky bit, mends that)")


def check_listener(connection: socket.socket, path: str, owners: frozenset[int]) -> None:
    """Raise Untrusted unless one of `owners` listens at the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid not in owners:
        raise Untrusted(f"{user_name(uid)} listens on {path}")


def user_name(uid: int) -> str:
    """`user mail`, or `user 61184` where it has no name here."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _given_by_root(directory: str) -> bool:
    """Whether nobody but root can have made `directory`, or put another in its place."""
    while directory != "/":
        directory = os.path.dirname(directory)
        status = os.stat(directory)
        if status.st_uid != ROOT or status.st_mode & stat.S_IWOTH:
            return False
    return True
