"""What a test kills: trainings in a process of their own. The forkserver has torch loaded, so each starts at once."""

import multiprocessing
import os
import signal
from multiprocessing.context import ForkServerProcess

import torch

from lovecraft.train import state, updates
from lovecraft.train.optim.step import Step
from lovecraft.train.updates import AfterBackward
from tests.train.bench import Bench


def start(bench: Bench, where: str, changes: dict[str, object]) -> ForkServerProcess:
    """Start a training that kills itself with SIGKILL at `where`, a key of PLACES."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.children"])
    child = context.Process(target=_train, args=(bench, where, changes))
    child.start()
    return child


def _train(bench: Bench, where: str, changes: dict[str, object]) -> None:
    torch.set_num_threads(1)
    PLACES[where]()
    bench.train(bench.config(**changes), bench.run())


def _die_in_a_step() -> None:
    """Die in step 5, after its backward and before its update."""
    norm, calls = AfterBackward.norm, iter(range(1, 100))
    AfterBackward.norm = lambda self: norm(self) if next(calls) < 5 else _die()


def _die_in_an_update() -> None:
    """Die in step 4, with some parameters updated."""
    update = updates.update

    def half(step: Step, parameters: dict[str, object], *words: object) -> None:
        some = dict(list(parameters.items())[: 10 if step.number == 4 else None])
        update(step, some, *words)
        if step.number == 4:
            _die()

    updates.update = half


def _die_in_a_save() -> None:
    """Die in the save of step 4, with its weights written and its optimizer state not."""
    write, calls = state.write_file, iter(range(1, 100))
    state.write_file = lambda *words: write(*words) if next(calls) < 2 else _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


PLACES = {"step": _die_in_a_step, "update": _die_in_an_update, "save": _die_in_a_save}
