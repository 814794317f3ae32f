"""Where rows of metrics go besides metrics.jsonl: TensorBoard, Weights & Biases, trackio, each an optional package.

Whatever is wrong when a sink is opened, before the first step, is an error. Later it fails alone: that is said once,
and the training goes on without it. A resumed run goes on in the same place, and sends no row a second time.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

from lovecraft.config.schema import TrainConfig
from lovecraft.errors import ConfigError, RunError
from lovecraft.runs import Run
from lovecraft.train import metrics


class Target(Protocol):
    """What takes numbers by name, at a step."""

    def write(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of one row."""

    def close(self, *, failed: bool) -> None:
        """Bring to its place what was taken."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.directory / "tensorboard"))

    def write(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of one row."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, *, failed: bool) -> None:
        """Write what is not written yet."""
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; its key, project and mode are what `wandb login` and WANDB_* say."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        wandb = importlib.import_module("wandb")  # an optional package, which type checkers may lack
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", project_of(run)),
            id=id_of(run),
            name=run.name,
            resume="allow",
            dir=run.directory,
            config=options_of(config),
            settings=wandb.Settings(console="off"),
        )

    def write(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of one row."""
        self._run.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        """Send what is not sent yet."""
        self._run.finish(exit_code=int(failed))


class Trackio:
    """A run of trackio, on this machine unless TRACKIO_SPACE_ID names another place."""

    def __init__(self, run: Run, config: TrainConfig) -> None:
        self._trackio = importlib.import_module("trackio")
        name = f"{run.name} {id_of(run)}"
        self._trackio.init(project_of(run), name, resume="allow", config=options_of(config), embed=False)

    def write(self, values: dict[str, float], step: int) -> None:
        """Take the numbers of one row."""
        self._trackio.log(values, step=step)

    def close(self, *, failed: bool) -> None:
        """Write what is not written yet."""
        self._trackio.finish()


SINKS = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}


@attrs.define
class Guarded:
    """An open sink that may break, and what it has been sent before."""

    name: str
    sink: Target | None
    sent: set[tuple[int, str]]
    say: Callable[[str], None]

    def write(self, row: dict[str, Any]) -> None:
        """Send a row, unless it was sent before or the sink is broken."""
        if self.sink is not None and _key(row) not in self.sent:
            self._try(self.sink.write, numbers(row), row["step"])

    def close(self, *, failed: bool) -> None:
        """Close the sink."""
        if self.sink is not None:
            self._try(self.sink.close, failed=failed)

    def _try(self, do: Callable[..., None], *words: Any, **more: Any) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                do(*words, **more)
        except Exception as error:  # noqa: BLE001  whatever its library raises: a network, a disk, a database
            self.sink = None
            what = str(error) or type(error).__name__
            self.say(f"{self.name} takes no more rows: {what}; the training goes on without it")


@contextlib.contextmanager
def opened(config: TrainConfig, run: Run, step: int, say: Callable[[str], None]) -> Iterator[list[Guarded]]:
    """Open the sinks of `config.log` for a training that is at `step`; called before its metrics file is cut.

    A sink that is new to the run is sent the earlier rows first.

    Raises ConfigError where a package is missing, RunError where a sink cannot be opened.
    """
    require(config.log.sinks)
    rows, found = metrics.read(run.directory), list[Guarded]()
    failed = True
    try:
        for name in config.log.sinks:
            known = (run.directory / name).exists()
            found.append(Guarded(name, _open(name, run, config), set(map(_key, rows)) if known else set(), say))
            (run.directory / name).mkdir(exist_ok=True)
            for row in () if known else rows:
                if row["step"] <= step:
                    found[-1].write(row)
        yield found
        failed = False
    finally:
        for one in found:
            one.close(failed=failed)


def require(sinks: Sequence[str]) -> None:
    """Raise ConfigError with the command that installs it where the package of a sink is missing."""
    for name in sinks:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"log.sinks names {name}, which is not installed", hint=f"pip install 'lovecraft-lc[{name}]'"
            )


def numbers(row: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a row of metrics.jsonl by name: train/loss, validation/loss."""
    group = row.get("split", "train")
    found = {name: value for name, value in row.items() if name not in ("step", "split") and value is not None}
    return {f"{group}/{name}": value for name, value in found.items()}


def options_of(config: TrainConfig) -> dict[str, Any]:
    """Return the values of all options, nested as the sections are. No option holds a secret."""
    return attrs.asdict(config, value_serializer=lambda _, __, value: str(value) if isinstance(value, Path) else value)


def project_of(run: Run) -> str:
    """Return the first part of a run's name."""
    return run.name.partition("/")[0]


def id_of(run: Run) -> str:
    """Return a name that no other run has, and that the run keeps wherever it lies."""
    record = run.record
    return hashlib.sha256(f"{run.name} {record['created']} {record['fingerprint']}".encode()).hexdigest()[:12]


def _open(name: str, run: Run, config: TrainConfig) -> Target:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return SINKS[name](run, config)
    except Exception as error:  # whatever its library raises
        hint = {"wandb": "run `wandb login`, or set WANDB_MODE=offline"}.get(name, f"leave {name} out of log.sinks")
        raise RunError(f"{name} cannot be opened: {str(error) or type(error).__name__}", hint=hint) from error


def _key(row: dict[str, Any]) -> tuple[int, str]:
    return row["step"], row.get("split", "train")
