"""What docs/howto/editor.md says of a language server holds: pyrefly's is asked as an editor would."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.config import schema

CONFIG = """
import workspace
from projects.texts.default import Dataset
from lovecraft import derived


class Train(workspace.Train):
    dataset = Dataset
    epochs = 3

    @derived
    def batch_size(self) -> int:
        return 4096 // self.dataset.block_size


class Short(Train):
    epochs = "three"
"""


class Server:
    """A language server of a workspace."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("pyrefly"), "lsp", "--indexing-mode", "none"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
        )
        capabilities = {"textDocument": {"hover": {"contentFormat": ["markdown"]}, "publishDiagnostics": {}}}
        folders = [{"uri": root.as_uri(), "name": root.name}]
        self.ask("initialize", processId=None, rootUri=None, workspaceFolders=folders, capabilities=capabilities)
        self.send(method="initialized", params={})

    def send(self, **message: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def next(self) -> Any:
        """Return the next message; a question of the server's is answered with nothing."""
        assert self.process.stdout is not None
        head = {}
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            head[name.lower()] = value
        message = json.loads(self.process.stdout.read(int(head[b"content-length"])))
        if "method" in message and "id" in message:
            self.send(id=message["id"], result=None)
        return message

    def ask(self, method: str, **params: Any) -> Any:
        """Ask, and return the answer."""
        self.send(id=method, method=method, params=params)
        while (message := self.next()).get("id") != method or "method" in message:
            pass
        return message["result"]

    def at(self, method: str, file: Path, words: str) -> Any:
        """Ask of the place where the last of the words stands in a file."""
        before = file.read_text().partition(words)[0] + words
        place = {"line": before.count("\n"), "character": len(before) - before.rfind("\n") - 2}
        return self.ask(method, textDocument={"uri": file.as_uri()}, position=place)


@pytest.fixture
def server(workspace: Path) -> Iterator[Server]:
    """Pyrefly's, in a workspace whose settings name this interpreter."""
    (workspace / "pyrefly.toml").write_text(f'search-path = ["."]\npython-interpreter-path = "{sys.executable}"\n')
    server = Server(workspace)
    yield server
    server.process.kill()
    server.process.communicate()


def test_hover_definition_and_checks_work_on_options(server: Server, write: Any) -> None:
    file = write("projects/mine/default.py", CONFIG)
    item = {"uri": file.as_uri(), "languageId": "python", "version": 1, "text": file.read_text()}
    server.send(method="textDocument/didOpen", params={"textDocument": item})

    hover = server.at("textDocument/hover", file, "self.dataset.block_size")["contents"]["value"]
    assert "block_size: int" in hover
    assert "Tokens in one block." in hover

    definition = server.at("textDocument/definition", file, "self.dataset.block_size")
    place = definition[0] if isinstance(definition, list) else definition
    assert place["uri"] == Path(schema.__file__).as_uri()
    line = Path(schema.__file__).read_text().splitlines()[place["range"]["start"]["line"]]
    assert line.strip().startswith("block_size:")

    found = server.ask("textDocument/diagnostic", textDocument={"uri": file.as_uri()})["items"]
    assert [item["range"]["start"]["line"] for item in found] == [15]
    assert "`Literal['three']` is not assignable to attribute `epochs`" in found[0]["message"]
