"""From a class to its instance tree and its rows: values, origins, comments, defaults, and all problems at once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import (
    SGD,
    WSD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    DatasetConfig,
    Eval,
    Linear,
    ModelConfig,
    OptimizerConfig,
    Save,
    ScheduleConfig,
    TrainConfig,
    resolve,
)
from lovecraft.cli import options
from lovecraft.config import base
from lovecraft.config.load import load
from lovecraft.config.modules import forget
from lovecraft.config.override import override
from lovecraft.config.resolve import Row, choices, rows, rows_so_far
from lovecraft.errors import ConfigError


def row(cls: Any, path: str) -> Row:
    """Return one row of a config."""
    return next(row for row in rows(cls) if row.path == path)


def problems(cls: Any) -> list[str]:
    """Return the lines of the error that a class resolves to."""
    with pytest.raises(ConfigError) as error:
        resolve(cls)
    return error.value.message.splitlines()


# --- the tree ---------------------------------------------------------------------------------------


def test_sections_become_instances_of_the_users_classes(workspace: Path) -> None:
    cls = load("tiny").cls
    config = resolve(cls)
    assert type(config) is cls
    assert type(config.optimizer) is cls.optimizer
    assert isinstance(config.optimizer, AdamW)
    assert config.optimizer.lr == 1e-3
    assert config.dataset.source == workspace / "texts"


def test_an_instance_resolves_to_itself(workspace: Path) -> None:
    config = resolve(load("tiny").cls)
    assert resolve(config) is config


def test_a_section_may_be_off(workspace: Path) -> None:
    config = resolve(override(load("tiny").cls, {"save": None, "eval": None}))
    assert config.save is None
    assert config.eval is None


def test_a_ready_made_instance_may_be_given_for_a_section_and_keeps_its_values(workspace: Path) -> None:
    optimizer = AdamW(lr=3e-4)
    cls = override(load("tiny").cls, {"optimizer": optimizer})
    assert resolve(cls).optimizer is optimizer
    assert row(cls, "optimizer.lr").value == 3e-4
    assert base.place(row(cls, "optimizer.lr").origin) == "an override"
    with pytest.raises(ConfigError, match="optimizer is not a section"):
        override(cls, {"optimizer.lr": 1.0})


def test_the_choices_of_a_section_are_the_librarys_classes() -> None:
    class Mine(AdamW):
        pass

    override(AdamW, {"lr": 1.0})
    assert choices(OptimizerConfig) == {"AdamW": AdamW, "Adafactor": Adafactor, "SGD": SGD}
    assert choices(ScheduleConfig) == {"Constant": Constant, "Linear": Linear, "Cosine": Cosine, "WSD": WSD}
    assert choices(Save) == {"Save": Save}


# --- rows -------------------------------------------------------------------------------------------


def test_rows_flatten_sections_in_the_order_of_declaration(workspace: Path) -> None:
    found = [row.path for row in rows(load("tiny").cls)]
    assert found[:2] == ["dataset.source", "dataset.format"]
    assert found.index("optimizer") + 1 == found.index("optimizer.lr")
    assert "dataset" not in found  # one class is all it can be
    assert "save" in found  # it may be off
    assert found[-1] == "device"
    assert len(found) == len(set(found))


def test_a_swappable_section_has_a_row_with_its_library_class(workspace: Path) -> None:
    cls = load("tiny").cls
    assert row(cls, "optimizer").value == "AdamW"
    assert row(cls, "schedule").value == "Constant"
    assert row(cls, "eval").value == "Eval"
    off = override(cls, {"eval": None})
    assert row(off, "eval").value is None
    assert not [r for r in rows(off) if r.path.startswith("eval.")]


def test_origins_are_the_lines_that_set_the_values(workspace: Path) -> None:
    origins = {row.path: base.place(row.origin) for row in rows(load("tiny").cls)}
    assert origins["dataset.block_size"] == "projects/texts/default.py:9"
    assert origins["model.path"] == "workspace.py:9"
    assert origins["optimizer"] == "workspace.py:19"
    assert origins["optimizer.lr"] == "workspace.py:14"
    assert origins["batch_size"] == "projects/tiny/default.py:8"
    assert origins["seed"].startswith("lovecraft/config/schema.py:")


def test_origins_survive_nested_overrides(workspace: Path) -> None:
    cls = override(
        load("tiny").cls,
        {"dataset.block_size": 16, "optimizer.lr": 1.0},
        {"dataset.block_size": base.Origin("", said="--dataset.block-size 16")},
    )
    origins = {row.path: base.place(row.origin) for row in rows(cls)}
    assert origins["dataset.block_size"] == "--dataset.block-size 16"
    assert origins["dataset.stride"] == "projects/texts/default.py:10"
    assert origins["optimizer.lr"] == "an override"
    assert origins["optimizer"] == "workspace.py:19"  # not swapped
    assert origins["optimizer.eps"].startswith("lovecraft/config/schema.py:")


def test_origins_under_a_branch_and_in_several_targets_are_right(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.texts.default import Dataset

        class Train(workspace.Train):
            dataset = Dataset
            if True:
                seed = 7  # in a branch
            batch_size, accumulation = (
                2,
                3,
            )
        """
    )
    assert base.place(row(cls, "seed").origin) == "projects/p/c.py:7"
    assert row(cls, "seed").comment == "in a branch"
    assert base.place(row(cls, "accumulation").origin) == "projects/p/c.py:8"


def test_comments_are_the_reasons_of_values(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from lovecraft import derived
        from projects.texts import default

        class Dataset(default.Dataset):
            text_field = "a # b"
            train = (  # several
                "a#.txt",  # no reason of the option
                "b.txt",
            )
            stride = 4  # noqa: X1

        class Train(workspace.Train):
            dataset = Dataset  # mine
            seed = 1

            @derived
            def batch_size(self) -> int:
                return 64 // self.dataset.block_size  # 64 tokens a step
        """
    )
    found = {row.path: row.comment for row in rows(cls)}
    assert found["dataset.train"] == "several"
    assert found["dataset.text_field"] == found["dataset.stride"] == found["seed"] == ""
    assert found["batch_size"] == "64 tokens a step"
    assert found["dataset.validation"] == "held out"  # of the class it derives from


def test_the_reason_of_a_plain_mixins_value_is_found(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.texts.default import Dataset

        class Long:
            max_steps = 9  # long enough

        class Train(Long, workspace.Train):
            dataset = Dataset
        """
    )
    found = row(cls, "max_steps")
    assert (base.place(found.origin), found.comment) == ("projects/p/c.py:5", "long enough")


def test_a_comment_behind_the_last_line_of_a_value_is_its_reason(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.texts import default

        class Dataset(default.Dataset):
            train = (
                "a.txt",  # no reason of the option
                "b.txt",
            )  # these two
            stride = 2 + \\
                2  # on two lines
            text_field = '''a
        b'''  # a text

        class Train(workspace.Train):
            dataset = Dataset
        """
    )
    found = {row.path: row.comment for row in rows(cls)}
    assert [found[f"dataset.{name}"] for name in ("train", "stride", "text_field")] == [
        "these two",
        "on two lines",
        "a text",
    ]


def test_a_row_has_the_history_of_its_value_the_winner_first(workspace: Path) -> None:
    found = row(override(load("tiny").cls, {"optimizer.lr": 1.0}), "optimizer.lr")
    assert [value for value, _ in found.history] == [1.0, 1e-3, 2e-5, 1e-5]


def test_a_default_is_what_the_nearest_library_class_says(workspace: Path) -> None:
    cls = load("tiny").cls
    defaults = {row.path: row.default for row in rows(cls)}
    assert defaults["optimizer.lr"] == 2e-5  # AdamW's own
    assert defaults["optimizer"] == "AdamW"
    assert defaults["schedule"] == "Cosine"
    assert defaults["dataset.source"] is None  # required
    assert defaults["epochs"] == 1.0
    assert {row.path: row.default for row in rows(override(cls, {"optimizer": SGD}))}["optimizer.lr"] == 1e-5


def test_a_default_does_not_move_with_an_override_of_a_library_class(workspace: Path) -> None:
    cls = override(load("tiny").cls, {"optimizer": Adafactor, "optimizer.lr": 0.5, "eval.every": 3})
    assert row(cls, "optimizer.lr").default == 1e-5
    assert row(cls, "eval.every").default is None


def test_quiet_is_what_has_no_effect_on_the_result_and_all_inside_it(workspace: Path) -> None:
    loud = {row.path for row in rows(load("tiny").cls) if not row.quiet}
    hushed = {row.path for row in rows(load("tiny").cls) if row.quiet}
    assert {"save", "save.every", "eval.prompts", "log.every", "memory.limit", "device", "max_minutes"} <= hushed
    assert {"optimizer", "optimizer.lr", "dataset.block_size", "seed", "max_steps", "model.dtype"} <= loud


def test_what_users_declare_is_marked_as_their_own(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from lovecraft import AdamW, derived
        from projects.texts.default import Dataset

        class Train(workspace.Train):
            dataset = Dataset
            tokens: int = 128
            second: type[AdamW] = AdamW

            @derived
            def batch_size(self) -> int:
                return self.second and self.tokens
        """
    )
    own = {row.path for row in rows(cls) if row.own}
    assert own == {"tokens"} | {f"second.{name}" for name in AdamW.__options__}
    assert row(cls, "tokens").default == 128


def test_rows_of_what_is_incomplete_hold_what_is_right(workspace: Path) -> None:
    import importlib

    load("tiny")
    train = importlib.import_module("workspace").Train
    found = {row.path: row.value for row in rows_so_far(train)}
    assert found["optimizer.lr"] == 1e-3
    assert not [path for path in found if path.startswith("dataset")]


OWN_SECTIONS = """
    import enum
    import workspace
    from lovecraft import Config, DatasetConfig, derived
    from projects.texts import default

    class Color(enum.Enum):
        RED = "red"
        BLUE = "blue"

    class Plain(Config):
        teacher: type[DatasetConfig] = default.Dataset
        colors: tuple[Color, ...] = (Color.RED,)

    class Rich(Plain):
        budget: int = 3

    class Part(Config):
        plain: type[Plain] | None = Plain

    class Train(workspace.Train):
        dataset = default.Dataset
        part: type[Part] = Part

        @derived
        def max_steps(self) -> int:
            return 1 if self.part.plain is None else self.part.plain.teacher.block_size * len(self.part.plain.colors)
"""


def test_sections_that_users_declare_refer_to_other_configs_at_every_depth(
    define: Callable[..., Any], write: Callable[[str, str], Path], workspace: Path
) -> None:
    write(
        "projects/texts/k8.py",
        """
        from projects.texts import default

        class Dataset(default.Dataset):
            block_size = 8
    """,
    )
    cls = define(OWN_SECTIONS)

    def change(*words: str) -> Any:
        return options.apply(cls, words, workspace)

    assert resolve(cls).max_steps == 32
    assert resolve(change("--part.plain.teacher", "texts/k8", "--part.plain.colors", "RED,BLUE")).max_steps == 16
    assert resolve(change("--part.plain", "none")).max_steps == 1
    rich = change("--part.plain", "Rich", "--part.plain.budget", "7")
    assert (row(rich, "part.plain").value, row(rich, "part.plain.budget").value) == ("Rich", 7)
    assert (row(rich, "part.plain").default, row(cls, "part.plain").value) == ("Plain", "Plain")
    with pytest.raises(ConfigError, match="expected one of RED, BLUE, got 'GREEN'"):
        change("--part.plain.colors", "GREEN")
    with pytest.raises(ConfigError, match="expected DatasetConfig, got Train"):
        change("--part.plain.teacher", "tiny")


def test_what_another_config_says_is_read_on_its_class(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.tiny import default

        class Train(default.Train):
            max_steps = default.Train.max_steps // 2
            batch_size = default.Train.dataset.block_size // 8
        """
    )
    assert (resolve(cls).max_steps, resolve(cls).batch_size) == (2, 4)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("default", "expected DatasetConfig, got the module projects.texts.default; write default.Dataset"),
        ("Plain", "expected DatasetConfig, got the class Plain; write DatasetConfig or a subclass"),
        ("workspace.Model", "expected DatasetConfig, got the class Model; write DatasetConfig or a subclass"),
        ("None", "expected DatasetConfig, got None; write DatasetConfig or a subclass"),
        ("'texts'", "expected DatasetConfig, got 'texts'; write DatasetConfig or a subclass"),
    ],
)
def test_what_is_no_class_of_the_right_kind_is_refused_for_a_section(
    define: Callable[..., Any], value: str, message: str
) -> None:
    cls = define(
        f"""
        import workspace
        from projects.texts import default

        class Plain:
            pass

        class Train(workspace.Train):
            dataset = {value}
        """
    )
    assert problems(cls) == [f"projects/p/c.py:8: dataset: {message}"]


@pytest.mark.parametrize("value", ["OptimizerConfig", "Mine", "OptimizerConfig()"])
def test_a_section_must_be_one_of_the_kinds_that_there_are(define: Callable[..., Any], value: str) -> None:
    cls = define(
        f"""
        import workspace
        from lovecraft import OptimizerConfig, override
        from projects.texts import default

        class Mine(OptimizerConfig):
            pass

        class Plain(workspace.Train):
            dataset = default.Dataset

        Train = override(Plain, {{"optimizer": {value}}})
        """,
        "c:Train",
    )
    assert "; write AdamW, Adafactor, SGD or a subclass" in problems(cls)[0]
    assert "optimizer: expected a kind of OptimizerConfig, got " in problems(cls)[0] or value.endswith("()")


OWN_OPTIONS = """
    import lovecraft
    from lovecraft import AdamW, derived
    from projects.tiny import default

    class Optimizer(AdamW):
        warmup: float = 0.1

    class Mixin(lovecraft.Config):
        scale: int = 2
        by_helper: int = 1
        by_name: int = 1

        @property
        def scaled(self) -> int:
            return self.scale * helper(self) * getattr(self, "by_name")

    def helper(config: object) -> int:
        return config.by_helper

    class Train(Mixin, default.Train):
        optimizer = Optimizer
        epoch: int = 3
        lr: float = 1e-4
        learning_rate: float = 1e-4
        batchsize = derived(lambda self: 4)
        batchsize: int
        shown: int

        @derived
        def shown(self) -> int:
            return int(self.optimizer.lr > 0)

        @derived
        def batch_size(self) -> int:
            return self.scaled
"""


def test_an_own_option_that_nothing_reads_is_refused_with_what_was_meant(define: Callable[..., Any]) -> None:
    what, found = "no @derived reads this option of yours; did you mean ", problems(define(OWN_OPTIONS))
    assert found == [
        f"projects/p/c.py:6: optimizer.warmup: {what}_warmup, a constant?",
        f"projects/p/c.py:22: epoch: {what}epochs or _epoch, a constant?",
        f"projects/p/c.py:23: lr: {what}optimizer.lr or _lr, a constant?",
        f"projects/p/c.py:24: learning_rate: {what}_learning_rate, a constant?",
        f"projects/p/c.py:25: batchsize: {what}batch_size or _batchsize, a constant?",
    ]


def test_a_config_is_resolved_once(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import random
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def seed(self) -> int:
                return random.getrandbits(60)
        """
    )
    assert row(cls, "seed").value == resolve(cls).seed == resolve(cls).seed


# --- problems ---------------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once_each_with_its_place(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.texts import default

        class Dataset(default.Dataset):
            block_size = "32"
            shuffle = 1

        class Optimizer(workspace.Optimizer):
            lr = 0.0
            betas = (0.9,)

        class Train(workspace.Train):
            dataset = Dataset
            optimizer = Optimizer
            schedule = "cosine"
            memory = None
            save = Dataset
            seed = 1.5
            batch_size = True
        """
    )
    assert problems(cls) == [
        "projects/p/c.py:5: dataset.block_size: expected int, got str '32'; write 32",
        "projects/p/c.py:6: dataset.shuffle: expected bool, got int 1",
        "projects/p/c.py:9: optimizer.lr: must be more than 0, got 0.0",
        "projects/p/c.py:10: optimizer.betas: expected 2 values, got 1: (0.9,)",
        "projects/p/c.py:15: schedule: expected ScheduleConfig, got 'cosine'; "
        "write Constant, Linear, Cosine, WSD or a subclass",
        "projects/p/c.py:16: memory: expected Memory, got None; write Memory or a subclass",
        "projects/p/c.py:17: save: expected Save or none, got the class Dataset; write Save or a subclass",
        "projects/p/c.py:18: seed: expected int, got float 1.5",
        "projects/p/c.py:19: batch_size: expected int, got bool True",
    ]


def test_a_wrong_value_of_a_plain_mixin_names_its_line(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from projects.texts.default import Dataset

        class Long:
            max_steps = "many"

        class Train(Long, workspace.Train):
            dataset = Dataset
        """
    )
    assert problems(cls) == ["projects/p/c.py:5: max_steps: expected int, got str 'many'"]


def test_a_missing_option_names_the_class_to_set_it_in(define: Callable[..., Any]) -> None:
    cls = define("import workspace\n\nclass Train(workspace.Train):\n    seed = 1\n")
    missing = "projects/p/c.py:3: dataset: required; set it in Train"
    assert problems(cls) == [missing]
    assert problems(override(cls, {"seed": 2})) == [missing]


def test_a_missing_option_of_a_library_section_names_the_line_that_chose_it(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from lovecraft import DatasetConfig

        class Texts(DatasetConfig):
            stride = 1

        class Train(workspace.Train):
            dataset = DatasetConfig
        """
    )
    missing = ["projects/p/c.py:8: dataset.source: required; set it in a subclass of DatasetConfig"]
    assert problems(cls) == missing
    assert problems(override(cls, {"dataset.block_size": 9})) == missing
    theirs = override(cls, {"dataset": sys.modules[cls.__module__].Texts})
    assert problems(theirs) == ["projects/p/c.py:4: dataset.source: required; set it in Texts"]


def test_the_library_alone_says_what_it_requires() -> None:
    assert [line.partition(": ")[2] for line in problems(TrainConfig)] == [
        "dataset: required; set it in a subclass of TrainConfig",
        "model: required; set it in a subclass of TrainConfig",
    ]


def test_a_derived_problem_is_reported_once_also_beside_others_that_it_does_not_echo(
    define: Callable[..., Any],
) -> None:
    text = """
        import workspace
        from lovecraft import derived
        from projects.texts.default import Dataset

        class Train(workspace.Train):
            dataset = Dataset
            {wrong}

            @derived
            def batch_size(self) -> int:
                return self.accumulation

            @derived
            def accumulation(self) -> int:
                return 0

            @derived
            def max_steps(self) -> int:
                return self.seed + 100 // self.save.keep
    """
    assert problems(define(text.format(wrong=""), "a")) == [
        "projects/p/a.py:14: accumulation: must be more than 0, got 0"
    ]
    for wrong in ("seed = None", "class save(Save): keep = 0"):
        found = problems(define(text.format(wrong=wrong).replace("import derived", "import Save, derived"), "b"))
        assert [line.partition(": ")[0] for line in found] == ["projects/p/b.py:7", "projects/p/b.py:14"]
        forget()


def test_a_derived_problem_of_a_section_has_its_whole_path(define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from lovecraft import derived
        from projects.texts import default

        class Dataset(default.Dataset):
            @derived
            def stride(self) -> int:
                return -self.block_size

        class Train(workspace.Train):
            dataset = Dataset
        """
    )
    assert problems(cls) == ["projects/p/c.py:7: dataset.stride: must be at least 0, got -32"]


def test_optional_sections_take_a_class_or_none_only() -> None:
    class Train(TrainConfig):
        dataset = override(DatasetConfig, {"source": Path("/a")})
        model = override(ModelConfig, {"path": Path("/b")})
        eval = Eval
        save = None

    assert resolve(Train).save is None
    assert resolve(Train).eval == Eval()
