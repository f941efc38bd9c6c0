"""A hub on this machine: the little of its API that fetching a model asks for, and what can go wrong on the way."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
_FILE = re.compile(rf"/([^/]+/[^/]+)/resolve/{REVISION}/(.+)")
_ABOUT = re.compile(r"/api/models/([^/]+/[^/?]+)(?:/revision/[^/?]+)?(?:\?.*)?")


@dataclass
class Hub:
    """Attributes:
    repositories: name -> path -> content.
    small: paths that git holds itself: they have no sha256.
    promised: path -> the sha256 that the hub tells, in place of the true one.
    cuts: bytes after which the next answers with a file end; one is used up by each.
    stalls: an answer that is cut does not end either.
    garbled: files are sent backwards.
    token: what is asked of whoever wants anything.
    gated: the token is for a licence that has to be accepted.
    asked: (path of the file, its Range or "") in the order in which files were asked for.
    """

    repositories: dict[str, dict[str, bytes]]
    small: set[str] = field(default_factory=set)
    promised: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    stalls: bool = False
    garbled: bool = False
    token: str | None = None
    gated: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    listings: int = 0

    def __post_init__(self) -> None:
        hub = self
        self._ended = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        """From here on nobody answers."""
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        if self._ended.is_set():  # a connection that was kept open
            to.close_connection = True
            return
        about, file = _ABOUT.fullmatch(to.path), _FILE.fullmatch(to.path)
        if self.token is not None and to.headers.get("Authorization") != f"Bearer {self.token}":
            refused = {"X-Error-Code": "GatedRepo"} if self.gated else {}
            _send(to, 403 if self.gated else 401, b"{}", refused)
        elif about is not None and about[1] in self.repositories:
            self.listings += 1
            _send(to, 200, json.dumps(self._about(about[1])).encode(), {"Content-Type": "application/json"})
        elif file is not None and file[2] in self.repositories.get(file[1], {}):
            self._send_file(to, file[2], self.repositories[file[1]][file[2]])
        else:
            _send(to, 404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _about(self, repo: str) -> dict[str, Any]:
        siblings = []
        for path, content in self.repositories[repo].items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sha256 = self.promised.get(path, hashlib.sha256(content).hexdigest())
            one: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": blob}
            if path not in self.small:
                one["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(one)
        return {"id": repo, "modelId": repo, "sha": REVISION, "siblings": siblings, "private": False, "tags": []}

    def _send_file(self, to: BaseHTTPRequestHandler, path: str, content: bytes) -> None:
        asked = to.headers.get("Range", "")
        self.asked.append((path, asked))
        begin = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        rest = (content[::-1] if self.garbled else content)[begin:]
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if asked else {}
        cut = self.cuts.pop(0) if self.cuts else None
        _send(to, 206 if asked else 200, rest, headers, cut)
        if cut is not None and self.stalls:
            self._ended.wait(30)


def _send(
    to: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cut: int | None = None
) -> None:
    to.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        to.send_header(name, value)
    to.end_headers()
    to.wfile.write(body[:cut])
    if cut is not None and cut < len(body):
        to.close_connection = True
