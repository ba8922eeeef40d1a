"""A file that outlives the process that wrote it: replaced whole or not at all, whatever ends process or machine."""

from __future__ import annotations

import os


def replace(path: str, content: bytes) -> None:
    """Have the file hold this, and make its directory where there is none. What it held is there until all of it is on
    the disk. Of two who do so at once, neither may be: the caller sees to that. Raises OSError."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    new = f"{path}.new"
    with open(new, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)
