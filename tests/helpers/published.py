"""A small text in place of the published enwik8, and its server on the loopback."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lr_gym.data import downloads

TEXT = bytes(range(32, 127)) * 300  # a stand-in for enwik8


def archive(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return content.getvalue()


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Server:
    """Serves one file on the loopback interface and counts requests."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/enwik8.zip"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def publish(
    monkeypatch: pytest.MonkeyPatch, url: str, download: bytes, text: bytes = TEXT
) -> None:
    stand_in = dataclasses.replace(
        downloads.PUBLISHED["enwik8"],
        url=url,
        download_hash=sha256(download),
        text_hash=sha256(text),
        size=len(text),
    )
    monkeypatch.setitem(downloads.PUBLISHED, "enwik8", stand_in)


def temporary_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))
