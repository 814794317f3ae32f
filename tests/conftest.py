"""What every test stands on: no network, a clean environment, one thread, and `lc` as a function."""

import os
import socket
import textwrap
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads would wait for each other most of the time
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
settings.register_profile("fast", derandomize=True, max_examples=50, deadline=None)
settings.load_profile("fast")

LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:  # type: ignore[index]
            raise OSError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Forget the variables that change what `lc` does; stand in an empty directory."""
    for name in ("NO_COLOR", "VISUAL", "EDITOR", "VSCODE_IPC_HOOK_CLI", "LC_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)


@attrs.frozen
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def lc(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return `lc`, run in this process: `lc("show", "tiny", "--json")`."""
    from lovecraft.cli import main

    def run(*words: str | Path) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return Outcome(code, out, err)

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a file of the workspace below tmp_path, its text dedented."""

    def one(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
        return path

    return one


@pytest.fixture
def workspace(write: Callable[[str, str], Path], tmp_path: Path) -> Path:
    """Make a small workspace: one dataset of three texts, one training config over a tiny model's directory."""
    write(
        "workspace.py",
        '''
        """A workspace for tests."""
        from pathlib import Path
        from lovecraft import AdamW, Constant, ModelConfig, TrainConfig

        ROOT = Path(__file__).parent


        class Model(ModelConfig):
            path = ROOT / "models" / "tiny"
            dtype = "float32"


        class Optimizer(AdamW):
            lr = 1e-3


        class Train(TrainConfig):
            model = Model
            optimizer = Optimizer
            schedule = Constant
        ''',
    )
    write(
        "projects/texts/default.py",
        '''
        """Three short texts in blocks of 32 tokens."""
        from lovecraft import DatasetConfig
        from workspace import ROOT


        class Dataset(DatasetConfig):
            source = ROOT / "texts"
            validation = ("c.txt",)  # held out
            block_size = 32
            stride = 8
        ''',
    )
    write(
        "projects/tiny/default.py",
        '''
        """Train a tiny model for a few steps."""
        import workspace
        from projects.texts.default import Dataset


        class Train(workspace.Train):
            dataset = Dataset
            batch_size = 2
            max_steps = 4
            device = "cpu"
        ''',
    )
    for name, seed in (("a", 3), ("b", 5), ("c", 7)):
        words = [("night", "sea", "stone", "bell", "moor", "lamp", "tide")[(i * seed + i // 3) % 7] for i in range(120)]
        write(f"texts/{name}.txt", f"The tale of {name}.\n\n" + " ".join(words) + ".\n")
    return tmp_path
