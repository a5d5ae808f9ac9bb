"""adapter: the status page's files, read from the package once and answered with an entity tag and gzip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.responses import Response

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.requests import Request

__all__ = ["CONTENT_SECURITY_POLICY", "StaticFolder"]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_HEADERS: Final = {
    # The names carry no version: a browser asks each time and mostly hears "304, not modified".
    "Cache-Control": "no-cache",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}

# Spelled out instead of asked from `mimetypes`, which reads the machine's own tables and differs between machines.
_CONTENT_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_COMPRESSED_ALREADY: Final = frozenset({".png", ".woff2"})


class _File(NamedTuple):
    content: bytes
    compressed: bytes | None
    content_type: str
    etag: str


class StaticFolder:
    """Every file of one folder of known type, by its path inside the folder; nothing outside it can be named."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder; it is read when the first file is asked for."""
        self._folder = folder
        self._files: dict[str, _File] | None = None

    def answer(self, name: str, request: Request) -> Response:
        """Return the file ``name`` as a response: 200, 304 when the browser has it already, 404."""
        if self._files is None:
            self._files = _read(self._folder)
        file = self._files.get(name)
        if file is None:
            return Response("not found\n", 404, {"X-Content-Type-Options": "nosniff"}, "text/plain")
        headers = {**_HEADERS, "ETag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            return Response(
                file.compressed, headers={**headers, "Content-Encoding": "gzip"}, media_type=file.content_type
            )
        return Response(file.content, headers=headers, media_type=file.content_type)


def _read(folder: Path) -> dict[str, _File]:
    return {
        path.relative_to(folder).as_posix(): _read_file(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix in _CONTENT_TYPES
    }


def _read_file(path: Path) -> _File:
    # Only a visited page needs these two: they cost milliseconds that the start of the server has no use for.
    import gzip
    import hashlib

    content = path.read_bytes()
    compressed = None if path.suffix in _COMPRESSED_ALREADY else gzip.compress(content, mtime=0)
    # A weak tag, because the compressed and the plain form share it.
    etag = f'W/"{hashlib.sha256(content).hexdigest()[:20]}"'
    return _File(content, compressed, _CONTENT_TYPES[path.suffix], etag)
