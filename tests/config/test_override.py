"""One more subclass: changes by dotted path."""

from pathlib import Path
from typing import Any

import pytest

from lovecraft import SGD, Adafactor, AdamW, ModelConfig, TrainConfig, resolve
from lovecraft.config import base
from lovecraft.config.base import Origin
from lovecraft.config.load import load
from lovecraft.config.override import override
from lovecraft.errors import ConfigError


@pytest.fixture
def tiny(workspace: Path) -> Any:
    """Return the workspace's training config."""
    return load("tiny").cls


def test_no_change_is_the_class_itself(tiny: Any) -> None:
    assert override(tiny, {}) is tiny


def test_a_change_makes_a_subclass_and_leaves_the_class_alone(tiny: Any) -> None:
    changed = override(tiny, {"batch_size": 5, "dataset.block_size": 16})
    assert issubclass(changed, tiny)
    assert issubclass(changed.dataset, tiny.dataset)
    assert (resolve(changed).batch_size, resolve(changed).dataset.block_size) == (5, 16)
    assert (resolve(tiny).batch_size, resolve(tiny).dataset.block_size) == (2, 32)


def test_overrides_stack(tiny: Any) -> None:
    changed = override(override(tiny, {"dataset.block_size": 16}), {"dataset.stride": 4, "seed": 1})
    config = resolve(changed)
    assert (config.dataset.block_size, config.dataset.stride, config.seed) == (16, 4, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_a_section_is_swapped_before_what_lies_inside_it_changes(tiny: Any, order: int) -> None:
    changes = dict([("optimizer", SGD), ("optimizer.momentum", 0.5)][::order])
    config = resolve(override(tiny, changes))
    assert isinstance(config.optimizer, SGD)
    assert config.optimizer.momentum == 0.5


def test_a_required_section_may_be_filled_option_by_option() -> None:
    class Train(TrainConfig):
        model = override(ModelConfig, {"path": Path("/m")})

    config = resolve(override(Train, {"dataset.source": Path("/texts")}))
    assert config.dataset.source == Path("/texts")


def test_an_override_keeps_name_module_and_description(tiny: Any) -> None:
    changed = override(tiny, {"seed": 1})
    assert (changed.__name__, changed.__qualname__, changed.__module__) == ("Train", "Train", "projects.tiny.default")
    assert base.named(override(changed, {"seed": 2})) is tiny
    assert type(resolve(changed)) is tiny


def test_a_changed_library_class_is_still_that_library_class() -> None:
    assert base.library_class(override(AdamW, {"lr": 1.0})) is AdamW


def test_said_becomes_the_origin(tiny: Any) -> None:
    flag = Origin("", said="--optimizer SGD")
    changed = override(tiny, {"optimizer": SGD, "seed": 3}, {"optimizer": flag})
    assert base.history(changed, "optimizer")[0][1] is flag
    assert base.place(base.history(changed, "seed")[0][1]) == "an override"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 1}, "Train has no option 'batchsize'; did you mean 'batch_size'?"),
        ({"dataset.blocksize": 1}, "Dataset has no option 'blocksize'; did you mean 'block_size'?"),
        ({"seed.x": 1}, "seed is not a section"),
        ({"save": None, "save.every": 1}, "save is switched off"),
        ({"optimizer": Adafactor, "optimizer.betas": (0.9, 0.9)}, "Adafactor has no option 'betas'"),
        ({"dataset.train": ["a"]}, "an override: Dataset.train is a list, which classes would share; write a tuple"),
    ],
)
def test_a_path_that_names_no_option_is_refused(tiny: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        override(tiny, changes)
    assert error.value.message.startswith(message)


def test_an_unknown_path_names_the_flag_that_said_it(tiny: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--dataset.blok 3: Dataset has no option 'blok'"):
        override(tiny, {"dataset.blok": 3}, {"dataset.blok": Origin("", said="--dataset.blok 3")})


def test_a_wrong_value_is_found_when_resolved(tiny: Any) -> None:
    changed = override(tiny, {"seed": "x"}, {"seed": Origin("", said="the record")})
    with pytest.raises(ConfigError, match=r"^the record: seed: expected int, got str 'x'$"):
        resolve(changed)
