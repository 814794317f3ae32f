"""The package's functions as scripts and notebooks call them; they say what the command line says."""

import copy
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lovecraft
from lovecraft import SGD, AdamW, Config, DatasetConfig, LovecraftError, ModelConfig, TrainConfig, derived
from lovecraft.config import modules, record

Write = Callable[[str, str], Path]
Command = Callable[..., Any]


@pytest.fixture
def run(workspace: Path) -> Path:
    """Make a run's directory, with its record."""
    directory = workspace / "runs" / "tiny" / "default" / "001"
    directory.mkdir(parents=True)
    changed = lovecraft.override(lovecraft.load("tiny"), {"max_steps": 9})
    record.write(directory / "record.json", record.make(changed, "tiny/default", workspace, {}))
    return directory


def refused(function: Callable[..., object], *arguments: object, **named: object) -> str:
    """Return the message with which a call is refused."""
    with pytest.raises(LovecraftError) as error:
        function(*arguments, **named)
    return error.value.message


# --- load -------------------------------------------------------------------------------------------


def test_load_returns_the_class_that_a_name_means(workspace: Path) -> None:
    found = lovecraft.load("tiny")
    assert issubclass(found, TrainConfig)
    assert lovecraft.load(workspace / "projects/tiny/default.py") is found
    assert lovecraft.load("tiny", kind=TrainConfig) is lovecraft.load("tiny", kind=Config) is found


def test_load_refuses_another_kind(workspace: Path) -> None:
    message = "projects/tiny/default.py:6: expected DatasetConfig, got Train"
    assert refused(lovecraft.load, "tiny", kind=DatasetConfig) == message
    for kind in (int, "Train", TrainConfig.__call__):
        assert "is no kind of config" in refused(lovecraft.load, "tiny", kind=kind)


# --- show -------------------------------------------------------------------------------------------


def test_show_is_what_the_command_prints_into_a_pipe(workspace: Path, lc: Command) -> None:
    text = lc("show", "tiny").out
    cls = lovecraft.load("tiny")
    for named in ("tiny", "tiny/default", workspace / "projects/tiny/default.py", cls, cls()):
        assert f"{lovecraft.show(named)}\n" == text
    assert repr(lovecraft.show(cls)) == str(lovecraft.show(cls))  # a notebook shows the former


def test_show_of_a_run_is_what_it_recorded(workspace: Path, run: Path, lc: Command) -> None:
    text = lc("show", "tiny/default/001").out
    for named in (run, str(run), run / "record.json", "tiny/default/001"):
        assert f"{lovecraft.show(named)}\n" == text
    assert re.search(r"^max_steps +9 ", text, re.MULTILINE)


def test_show_of_an_instance_says_what_was_changed(workspace: Path) -> None:
    cls = lovecraft.load("tiny", kind=TrainConfig)
    changes = {"max_steps": 9, "optimizer.lr": 0.5, "dataset.block_size": 64, "save": None}
    changed = lovecraft.override(cls, changes)
    shown = re.sub(r" *an override", " HERE", lovecraft.show(lovecraft.resolve(changed)))
    assert re.sub(r" *tests/test_api.py:\d+", " HERE", lovecraft.show(changed)) == shown
    assert shown.count(" HERE") == 4
    swapped = lovecraft.show(cls(optimizer=SGD))
    assert re.search(r"^optimizer +SGD +an override", swapped, re.MULTILINE)


def test_a_derived_value_of_an_instance_keeps_its_origin(workspace: Path, write: Write) -> None:
    text = """
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def batch_size(self) -> int:
                return 2 * self.max_steps
    """
    write("projects/one/a.py", text)
    cls = lovecraft.load("one/a")
    found = {c.path: (c.b, c.b_origin.partition(":")[0]) for c in lovecraft.diff(cls, cls(max_steps=5))}
    assert found == {"max_steps": (5, "an override"), "batch_size": (10, "projects/one/a.py")}
    assert {c.path: c.b for c in lovecraft.diff(cls, cls(batch_size=3))} == {"batch_size": 3}


@pytest.mark.parametrize("wrong", [3, None, int, {"max_steps": 3}])
def test_what_is_no_config_is_refused(workspace: Path, wrong: object) -> None:
    assert refused(lovecraft.show, wrong) == f"expected a config class, an instance or a name, got {wrong!r}"
    assert refused(lovecraft.diff, "tiny", wrong) == f"expected a config class, an instance or a name, got {wrong!r}"


def test_show_refuses_a_name_that_means_nothing(workspace: Path) -> None:
    assert refused(lovecraft.show, "tinny") == "no config 'tinny'; did you mean tiny?"
    assert "dataset: required" in refused(lovecraft.show, TrainConfig)


# --- diff -------------------------------------------------------------------------------------------


def test_diff_is_a_list_that_prints_as_the_command_does(workspace: Path, run: Path, lc: Command) -> None:
    found = lovecraft.diff("tiny", run)
    assert [(c.path, c.a, c.b) for c in found] == [("max_steps", 4, 9)]
    assert f"{found}\n" == f"{found!r}\n" == lc("diff", "tiny", str(run)).out
    assert json.loads(lc("diff", "tiny", str(run), "--json").out)[0]["a_origin"] == found[0].a_origin


def test_diff_of_equals_is_empty_and_says_so(workspace: Path) -> None:
    cls = lovecraft.load("tiny")
    assert lovecraft.diff(cls, cls()) == []
    assert str(lovecraft.diff(cls, "tiny")) == "no difference"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max_steps": st.integers(1, 9),
            "epochs": st.floats(0.5, 4),
            "optimizer": st.sampled_from([AdamW, SGD]),
            "optimizer.lr": st.floats(1e-6, 1),
            "optimizer.weight_decay": st.floats(0, 1),
            "eval": st.none(),
            "dataset.block_size": st.integers(100, 900),
        },
    )
)
def test_an_instance_differs_from_its_class_as_the_overridden_class_does(changes: dict[str, Any]) -> None:
    class Model(ModelConfig):
        path = "hf:some/where"

    class Train(TrainConfig):
        dataset = DatasetConfig
        model = Model
        max_steps = 5

        @derived
        def accumulation(self) -> int:
            return self.max_steps or 1

    class Dataset(DatasetConfig):
        source = "hf:some/where"

    base = lovecraft.override(Train, {"dataset": Dataset})
    changed = lovecraft.override(base, changes)
    left, right = lovecraft.diff(base, changed), lovecraft.diff(base, lovecraft.resolve(changed))
    assert [(c.path, c.a, c.b) for c in left] == [(c.path, c.a, c.b) for c in right]


# --- override ---------------------------------------------------------------------------------------


def test_the_origin_of_what_is_overridden_is_the_line_of_the_call(workspace: Path) -> None:
    cls = lovecraft.load("tiny", kind=TrainConfig)
    changed = lovecraft.override(cls, {"max_steps": 9, "dataset.block_size": 64})  # as an experiment
    line = sys._getframe().f_lineno - 1
    assert {c.path: c.b_origin for c in lovecraft.diff(cls, changed)} == {
        "max_steps": f"tests/test_api.py:{line}",
        "dataset.block_size": f"tests/test_api.py:{line}",
    }
    assert str(lovecraft.show(changed)).count("as an experiment") == 2
    with pytest.raises(LovecraftError, match=rf"^tests/test_api\.py:{line + 8}: max_steps: expected int, got str"):
        lovecraft.resolve(lovecraft.override(cls, {"max_steps": "many"}))


@pytest.mark.parametrize("wrong", ["tiny", int, None])
def test_resolve_takes_a_config_class_or_an_instance(wrong: Any) -> None:
    assert refused(lovecraft.resolve, wrong) == f"expected a config class or an instance, got {wrong!r}"


@pytest.mark.parametrize("wrong", ["tiny", int, None])
def test_override_takes_a_config_class(workspace: Path, wrong: Any) -> None:
    assert refused(lovecraft.override, wrong, {}) == f"expected a config class, got {wrong!r}"


def test_override_says_what_it_takes(workspace: Path) -> None:
    cls = lovecraft.load("tiny", kind=TrainConfig)
    assert refused(lovecraft.override, cls(), {}) == "expected a config class, got an instance of Train"
    wrong = "expected values by option, got ['seed']; write {'option': value}"
    assert refused(lovecraft.override, cls, ["seed"]) == wrong
    found = refused(lovecraft.override, cls, {"seed": 1, "optimizer": {"lr": 3}})
    assert found.endswith("optimizer: expected a value, got a dict; write {'optimizer.lr': 3}")


WORKER = """
import lovecraft, multiprocessing, pickle

def work(config):
    return config.max_steps, config.optimizer.lr

if __name__ == "__main__":
    config = lovecraft.load("tiny")(max_steps=7)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(work, [config]))
"""


def test_a_resolved_config_can_be_sent_to_a_spawned_worker(workspace: Path, write: Write) -> None:
    done = subprocess.run([sys.executable, str(write("w.py", WORKER))], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("(7, 0.001)\n", "")


def test_instances_pickle_also_when_their_module_was_dropped(workspace: Path) -> None:
    config = lovecraft.load("tiny")(max_steps=7)
    modules.forget()
    again = pickle.loads(pickle.dumps(config))
    assert lovecraft.diff(config, again) == []
    assert type(again) is lovecraft.load("tiny")
    assert copy.deepcopy(config) == config == copy.copy(config)


def test_override_suggests_the_option_that_was_meant(workspace: Path) -> None:
    cls = lovecraft.load("tiny", kind=TrainConfig)
    assert "did you mean 'max_steps'?" in refused(lovecraft.override, cls, {"max_stepz": 1})
    assert "did you mean 'block_size'?" in refused(lovecraft.override, cls, {"dataset.blocksize": 1})


# --- in a program of its own ------------------------------------------------------------------------


def test_a_script_uses_the_package_outside_of_the_command(workspace: Path) -> None:
    program = (
        "import lovecraft, sys\n"
        "train = lovecraft.load('tiny', kind=lovecraft.TrainConfig)\n"
        "print(lovecraft.resolve(train).max_steps, len(lovecraft.diff(train, train(max_steps=1))))\n"
        "print(lovecraft.show(train).splitlines()[0].split()[0])\n"
        "assert not {'torch', 'rich', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=workspace, check=False)
    assert (done.stdout, done.stderr) == ("4 1\noption\n", "")
