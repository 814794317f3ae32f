"""A Hugging Face hub on this machine: repositories of models and datasets, as the hub's own libraries ask for them.

@pytest.fixture
def serve_hub(monkeypatch, tmp_path):
    with hubs(monkeypatch, tmp_path / "huggingface") as serve_hub:
        yield serve_hub

def test_…(serve_hub):
    hub = serve_hub({"datasets/org/name": {"data/train.jsonl": b"…"}, "org/model": {"config.json": b"{}"}})
"""

import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import attrs
import pytest

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.+))?)?")
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

Files = dict[str, bytes]


@attrs.define
class Hub:
    """A hub that is being served."""

    repositories: dict[str, Files]
    """`org/name` of a model, `datasets/org/name` of a dataset → its files; change it, and that is a new commit."""
    refused: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """Repository → the status and the hub's error code that answer for its files: `(403, "GatedRepo")`."""
    stalled: dict[str, int] = attrs.field(factory=dict)
    """File → how many of its bytes are sent before nothing more comes."""
    requests: list[str] = attrs.field(factory=list)
    """Every request so far: `GET /api/datasets/org/name`."""
    url: str = ""
    close: Callable[[], None] = lambda: None
    """Stop serving: connections are refused from now on."""

    def commit(self, repository: str) -> str:
        """Return the id of a repository's only commit, which its files and nothing else make."""
        return _oid(json.dumps({name: _oid(data) for name, data in self.repositories[repository].items()}).encode())


@contextlib.contextmanager
def hubs(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Callable[..., Hub]]:
    """Yield `serve_hub`, which serves repositories and makes the hub's libraries ask there; their cache is `home`.

    The libraries read the environment when they are first imported, so what they made of it is set as well.
    """
    import datasets.config
    import huggingface_hub.constants
    import huggingface_hub.utils

    for variable in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_UPDATE_DOWNLOAD_COUNTS", "0")  # it would leave this machine
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
    }.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "HF_DATASETS_CACHE": home / "datasets",
        "DOWNLOADED_DATASETS_PATH": home / "datasets" / "downloads",
    }.items():
        monkeypatch.setattr(datasets.config, name, value)

    with contextlib.ExitStack() as every:

        def serve_hub(repositories: dict[str, Files], **options: Any) -> Hub:
            hub = Hub(repositories, **options)
            server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            hub.url = f"http://127.0.0.1:{server.server_port}"
            one = every.enter_context(contextlib.ExitStack())
            one.callback(huggingface_hub.utils.close_session)  # its open connections would be answered still
            one.callback(server.server_close)
            one.callback(server.shutdown)
            hub.close = one.close
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
            template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
            return hub

        yield serve_hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"] or 0)).decode())
        if found := API.fullmatch(path):
            kind, name, what, revision, inside = found.groups()
            if (files := self._files(f"datasets/{name}" if kind == "datasets" else name, revision)) is not None:
                self._send(json.dumps(self._about(name, what, inside or "", files, form)).encode())
        elif found := RESOLVE.fullmatch(path):
            kind, name, revision, file = found.groups()
            repository = f"{kind}/{name}" if kind else name
            if repository in self.hub.refused:
                self._refuse(*self.hub.refused[repository])
            elif (files := self._files(repository, revision)) is not None:
                if file in files:
                    head = {"ETag": f'"{_oid(files[file])}"', "X-Repo-Commit": self._commit}
                    self._send(files[file], stalled=self.hub.stalled.get(file), **head)
                else:
                    self._refuse(404, "EntryNotFound", **{"X-Repo-Commit": self._commit})
        else:
            self._refuse(404, "")

    do_HEAD = do_POST = do_GET

    def _files(self, repository: str, revision: str | None) -> Files | None:
        """Return the files of a repository, or refuse the request."""
        if self.hub.refused.get(repository, (0, ""))[1] == "RepoNotFound" or repository not in self.hub.repositories:
            self._refuse(*self.hub.refused.get(repository, (401, "RepoNotFound")))  # as who is not logged in is told
            return None
        self._commit = self.hub.commit(repository)
        if revision not in (None, "main", self._commit):
            self._refuse(404, "RevisionNotFound")
            return None
        return self.hub.repositories[repository]

    def _about(self, name: str, what: str | None, inside: str, files: Files, form: dict[str, list[str]]) -> Any:
        """Return what the API says of a repository, of what lies in one of its folders, or of some paths."""
        if what not in ("tree", "paths-info"):
            return {"id": name, "sha": self._commit, "siblings": [{"rfilename": file} for file in files]}
        folders = {file[: slash.start()] for file in files for slash in re.finditer("/", file)}
        rows = [{"type": "directory", "path": folder, "oid": _oid(folder.encode()), "size": 0} for folder in folders]
        rows += [{"type": "file", "path": f, "oid": _oid(data), "size": len(data)} for f, data in files.items()]
        if what == "paths-info":
            return [row for row in rows if row["path"] in form.get("paths", [])]
        every = "recursive=true" in self.path.lower()
        top = f"{inside}/" if inside else ""
        below = [row for row in rows if row["path"].startswith(top)]
        return [row for row in below if every or "/" not in row["path"].removeprefix(top)]

    def _send(self, data: bytes, status: int = 200, stalled: int | None = None, **headers: str) -> None:
        first, last = 0, len(data) - 1
        if status == 200 and (given := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")):
            first, last = int(given[1]), min(int(given[2] or last), last)
            status, headers["Content-Range"] = 206, f"bytes {first}-{last}/{len(data)}"
        self.send_response(status)
        for name, value in ({"Content-Length": str(last + 1 - first), "Accept-Ranges": "bytes"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[first : last + 1][:stalled])
            if stalled is not None:
                self.wfile.flush()
                time.sleep(60)  # until whoever waits is killed

    def _refuse(self, status: int, code: str, **headers: str) -> None:
        self._send(b"", status, **{"X-Error-Code": code, "X-Error-Message": code} | headers)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
