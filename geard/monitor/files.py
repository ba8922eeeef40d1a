"""The files of the pages: read once, kept compressed, and named by their content so that a browser may keep them."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

from flask import Response, abort, request

TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class Static:
    """The files of one directory."""

    def __init__(self, directory: Path) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.suffix in TYPES}
        self._compressed = {name: gzip.compress(data, mtime=0) for name, data in self._files.items()}
        self._versions = {name: hashlib.sha256(data).hexdigest()[:8] for name, data in self._files.items()}

    def versioned(self, name: str) -> str:
        """What a page calls a file."""
        return f"{name}?v={self._versions[name]}"

    def respond(self, name: str) -> Response:
        """A file, compressed for whom that is welcome."""
        if name not in self._files:
            abort(404, "no such file")
        fresh = request.args.get("v") == self._versions[name]
        keep = "public, max-age=31536000, immutable" if fresh else "no-cache"
        headers = {"Cache-Control": keep, "Vary": "Accept-Encoding"}
        compressed = "gzip" in request.headers.get("Accept-Encoding", "")
        if compressed:
            headers["Content-Encoding"] = "gzip"
        data = (self._compressed if compressed else self._files)[name]
        return Response(data, headers=headers, mimetype=TYPES[Path(name).suffix])
