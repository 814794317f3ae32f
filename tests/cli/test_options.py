"""A config's options as flags: every kind of value, sections swapped by every name, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lovecraft import SGD, Adafactor, AdamW, Config, Constant, TrainConfig, derived, resolve
from lovecraft.cli.options import apply, flag_of
from lovecraft.config import base, render
from lovecraft.config.load import load
from lovecraft.config.resolve import rows
from lovecraft.errors import ConfigError

Change = Callable[..., Any]


@pytest.fixture
def change(workspace: Path) -> Change:
    """Return a function that gives the workspace's training config flags and resolves it."""

    def one(*words: str) -> Any:
        return resolve(apply(load("tiny").cls, words, workspace))

    return one


@pytest.fixture
def refuse(workspace: Path) -> Callable[..., ConfigError]:
    """Return a function that returns the error with which flags are refused."""

    def one(*words: str) -> ConfigError:
        with pytest.raises(ConfigError) as error:
            resolve(apply(load("tiny").cls, words, workspace))
        return error.value

    return one


# --- values -----------------------------------------------------------------------------------------


def test_no_flag_changes_nothing(workspace: Path) -> None:
    cls = load("tiny").cls
    assert apply(cls, [], workspace) is cls


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        ("--max-steps 10", "max_steps", 10),
        ("--max-steps=10", "max_steps", 10),
        ("--max_steps 10", "max_steps", 10),
        ("--max-steps 1e3", "max_steps", 1000),
        ("--max-steps none", "max_steps", None),
        ("--max-steps 1_000", "max_steps", 1000),
        ("--seed -5", "seed", -5),
        ("--seed=-5", "seed", -5),
        ("--epochs .5", "epochs", 0.5),
        ("--optimizer.lr 3e-4", "optimizer.lr", 3e-4),
        ("--optimizer Adafactor --optimizer.decay-rate -.5", "optimizer.decay_rate", -0.5),
        ("--optimizer Adafactor --optimizer.decay-rate -5e-1", "optimizer.decay_rate", -0.5),
        ("--optimizer.betas 0.8,0.9", "optimizer.betas", (0.8, 0.9)),
        ("--optimizer.betas [0.8,0.9]", "optimizer.betas", (0.8, 0.9)),
        ("--dataset.train a.txt,b.txt", "dataset.train", ("a.txt", "b.txt")),
        ("--dataset.train *.md", "dataset.train", ("*.md",)),
        ("--dataset.validation=", "dataset.validation", ()),
        ("--dataset.shuffle", "dataset.shuffle", True),
        ("--no-dataset.shuffle", "dataset.shuffle", False),
        ("--dataset.shuffle false", "dataset.shuffle", False),
        ("--dataset.shuffle=false", "dataset.shuffle", False),
        ("--dataset.shuffle=on", "dataset.shuffle", True),
        ("--dataset.add-bos", "dataset.add_bos", True),
        ("--no-dataset.add-bos", "dataset.add_bos", False),
        ("--dataset.add-bos none", "dataset.add_bos", None),
        ("--no-save.best", "save.best", False),
        ("--device cuda:1", "device", "cuda:1"),
        ("--dataset.text-field=--x", "dataset.text_field", "--x"),
        ("--model.dtype bfloat16", "model.dtype", "bfloat16"),
        ("--dataset.tokenizer none", "dataset.tokenizer", None),
        ("--model.path hf:org/name", "model.path", "hf:org/name"),
        ("--eval.prompts=The_sea,_the_sea", "eval.prompts", ("The_sea", "_the_sea")),
    ],
)
def test_a_flag_sets_its_option(change: Change, words: str, path: str, value: Any) -> None:
    found = change(*words.split())
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_text_with_commas_and_blanks_is_a_json_list(change: Change) -> None:
    assert change("--eval.prompts", '["The sea, the sea", "-1"]').eval.prompts == ("The sea, the sea", "-1")


@pytest.mark.parametrize("word", ["(0.9,0.95)", "(0.9, 0.95,)", "0.9,0.95,", "[0.9, 0.95]"])
def test_a_tuple_may_be_written_as_in_python(change: Change, word: str) -> None:
    assert change("--optimizer.betas", word).optimizer.betas == (0.9, 0.95)


def test_a_name_in_brackets_is_no_tuple(change: Change) -> None:
    assert change("--dataset.train", "(draft)").dataset.train == ("(draft)",)
    assert change("--dataset.train", "()").dataset.train == ()


def test_a_path_is_relative_to_where_one_stands(
    change: Change, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace / "texts")
    config = change("--model.path", "../models/b", "--dataset.source", "a.txt")
    assert config.model.path == workspace / "models" / "b"
    assert config.dataset.source == workspace / "texts" / "a.txt"


def test_a_path_as_everything_prints_it_is_below_the_root(
    change: Change, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace / "texts")
    assert change("--model.path", "//models/my b").model.path == workspace / "models" / "my b"
    with pytest.raises(ConfigError, match="// is the root of a workspace, and there is none here"):
        apply(load("tiny").cls, ["--model.path", "//x"], None)


def test_a_path_begins_at_home(change: Change) -> None:
    assert change("--model.path", "~/b").model.path == Path.home() / "b"


class Pair(Config):
    """Options of the kinds that Train has none of."""

    files: tuple[Path, ...] = ()
    """Paths."""

    size: Literal[2, 4, "auto"] = 2
    """Choices of several types."""

    note: str | None = None
    """Optional text."""


def test_paths_in_a_tuple_and_choices_of_several_types(workspace: Path) -> None:
    config = resolve(apply(Pair, ["--files", "//a,b c", "--size", "4"], workspace))
    assert config.files == (workspace / "a", Path.cwd() / "b c")
    assert config.size == 4
    assert resolve(apply(Pair, ["--size=auto", "--note="], workspace)).note == ""


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=0))
def test_a_tuple_as_it_is_shown_is_understood(items: list[str]) -> None:
    shown = render.text_of(tuple(items))
    found: Any = apply(TrainConfig, [f"--eval.prompts={shown}"], None)
    assert found.eval.prompts == tuple(items)


def test_a_derived_value_follows_a_flag(workspace: Path) -> None:
    class Train(load("tiny").cls):  # type: ignore[misc]
        @derived
        def batch_size(self) -> int:
            return 256 // self.dataset.block_size

    words = ["--dataset.block-size", "64"]
    assert resolve(apply(Train, words, workspace)).batch_size == 4
    assert resolve(apply(Train, [*words, "--batch-size", "3"], workspace)).batch_size == 3


def test_the_origin_of_a_flags_value_is_the_flag(workspace: Path) -> None:
    words = ["--optimizer", "SGD", "--optimizer.lr=1e-2", "--no-dataset.shuffle", "--seed", "-1"]
    cls = apply(load("tiny").cls, words, workspace)
    origins = {row.path: base.place(row.origin) for row in rows(cls)}
    assert origins["optimizer"] == "--optimizer SGD"
    assert origins["optimizer.lr"] == "--optimizer.lr 1e-2"
    assert origins["dataset.shuffle"] == "--no-dataset.shuffle"
    assert origins["seed"] == "--seed -1"
    assert origins["optimizer.momentum"].startswith("lovecraft/config/schema.py")
    assert origins["dataset.block_size"] == "projects/texts/default.py:9"


# --- sections ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("word", "kind"), [("AdamW", AdamW), ("Adafactor", Adafactor), ("SGD", SGD)])
def test_a_section_is_swapped_for_a_library_class_by_name(change: Change, word: str, kind: type) -> None:
    assert type(change("--optimizer", word).optimizer) is kind


@pytest.mark.parametrize(
    "word",
    ["small", "small/default", "small/default:Dataset", "projects/small/default.py", "//projects/small/default.py"],
)
def test_a_section_is_swapped_for_a_config_by_its_names(
    change: Change, write: Callable[[str, str], Path], word: str
) -> None:
    write(
        "projects/small/default.py",
        "from projects.texts import default\n\nclass Dataset(default.Dataset):\n    block_size = 9\n",
    )
    config = change("--dataset", word)
    assert config.dataset.block_size == 9
    assert type(config.dataset).__module__ == "projects.small.default"


def test_a_section_is_swapped_for_a_section_class_of_a_module(
    change: Change, write: Callable[[str, str], Path]
) -> None:
    write("projects/small/parts.py", "from lovecraft import SGD\n\nclass Slow(SGD):\n    lr = 0.125\n")
    assert change("--optimizer", "small/parts:Slow").optimizer.lr == 0.125


def test_an_optional_section_is_switched_off(change: Change) -> None:
    config = change("--save", "none", "--eval=none")
    assert (config.save, config.eval) == (None, None)


def test_an_optional_section_is_switched_on_again(workspace: Path) -> None:
    class Train(load("tiny").cls):  # type: ignore[misc]
        save = None

    assert resolve(apply(Train, ["--save", "Save", "--save.every", "5"], workspace)).save.every == 5


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("swap", "inside", "value"),
    [
        (["--optimizer", "Adafactor"], ["--optimizer.eps", "1e-9,1e-4"], (1e-9, 1e-4)),
        (["--optimizer", "Adafactor"], ["--optimizer.relative-step"], True),
        (["--optimizer", "SGD"], ["--optimizer.momentum", "0.5"], 0.5),
        (["--schedule", "WSD"], ["--schedule.decay", "0.5"], 0.5),
    ],
)
def test_swap_and_nested_option_come_in_any_order(
    change: Change, order: int, swap: list[str], inside: list[str], value: Any
) -> None:
    words = [word for part in [swap, inside][::order] for word in part]
    section, name = inside[0].removeprefix("--").replace("-", "_").split(".")
    assert getattr(getattr(change(*words), section), name) == value


def test_an_option_is_read_by_the_type_it_has_after_the_swap(
    change: Change, refuse: Callable[..., ConfigError]
) -> None:
    assert change("--optimizer.eps", "1e-9").optimizer.eps == 1e-9  # AdamW's is a number, Adafactor's a pair
    error = refuse("--optimizer.eps", "1e-9", "--optimizer", "Adafactor")
    assert error.message == "--optimizer.eps 1e-9: expected 2 values, got 1: ('1e-9',)"


class Leaf(Config):
    """Innermost."""

    size: int = 1
    """Size."""


class OtherLeaf(Leaf):
    """Another innermost."""

    extra: int = 2
    """Only here."""


class Branch(Config):
    """Holds a leaf."""

    leaf: type[Leaf] | None = Leaf
    """A section in a section."""


class OtherBranch(Branch):
    """Another one, whose leaf has more."""

    leaf = OtherLeaf


class Tree(Config):
    """Holds a branch that may be off."""

    branch: type[Branch] | None = None
    """A section."""


@pytest.mark.parametrize("order", [1, -1])
def test_sections_are_swapped_from_the_outside_in(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    def by_name(kind: type) -> dict[str, Any]:
        known = (Leaf, OtherLeaf, Branch, OtherBranch)
        return {k.__name__: k for k in known if issubclass(k, kind)}

    monkeypatch.setattr("lovecraft.cli.options.choices", by_name)
    flags = ["--branch=OtherBranch", "--branch.leaf=OtherLeaf", "--branch.leaf.extra=7", "--branch.leaf.size=8"][
        ::order
    ]
    config = resolve(apply(Tree, flags, None))
    assert config.branch is not None
    assert (type(config.branch), type(config.branch.leaf)) == (OtherBranch, OtherLeaf)
    assert repr(config.branch.leaf) == "OtherLeaf(size=8, extra=7)"


def test_a_required_section_that_is_not_set_is_filled_by_flags(workspace: Path) -> None:
    class Train(TrainConfig):
        model = load("tiny").cls.model

    config = resolve(apply(Train, ["--dataset.source", "texts", "--dataset.stride", "1"], workspace))
    assert (config.dataset.source, config.dataset.stride) == (workspace / "texts", 1)


# --- refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max-step 3", "no option --max-step; did you mean --max-steps?"),
        ("--maxsteps 3", "no option --maxsteps; did you mean --max-steps?"),
        ("--block-size 3", "no option --block-size; did you mean --dataset.block-size?"),
        ("--dataset.optimizer.lr 3", "no option --dataset.optimizer.lr; did you mean --optimizer.lr?"),
        ("--lr 3", "no option --lr; did you mean --optimizer.lr?"),
        ("--every 3", "no option --every; did you mean --save.every or --eval.every?"),
        ("--optimizer.momentum 3", "no option --optimizer.momentum"),
        ("--zzz 3", "no option --zzz"),
        ("-x 3", "unexpected '-x'"),
        ("--save none --save.every 3", "no option --save.every: save is switched off"),
        ("--optimizer.eps 3 --optimizer SGD", "no option --optimizer.eps"),
        ("--seed.x 3", "no option --seed.x"),
        ("--no-save", "no option --no-save"),
        ("extra", "unexpected 'extra'"),
        ("--seed 1 extra", "unexpected 'extra'"),
        ("--seed", "--seed needs a value: int"),
        ("--max-steps --seed 1", "--max-steps needs a value: int or none"),
        ("--optimizer", "--optimizer needs a name: AdamW, Adafactor, SGD, or a config"),
        ("--no-seed", "--no-seed is no flag: seed is not true or false"),
        ("--no-dataset.shuffle true", "--no-dataset.shuffle takes no value, got 'true'"),
        ("--no-dataset.shuffle=false", "--no-dataset.shuffle takes no value, got 'false'"),
        ("--max-steps ten", "--max-steps ten: expected int, got 'ten'"),
        ("--max-steps 1.5", "--max-steps 1.5: expected int, got '1.5'"),
        ("--max-steps 0", "--max-steps 0: must be more than 0, got 0"),
        ("--dataset.stride=-5", "--dataset.stride -5: must be at least 0, got -5"),
        ("--dataset.shuffle 1", "--dataset.shuffle 1: expected true or false, got '1'"),
        ("--optimizer.betas 1", "--optimizer.betas 1: expected 2 values, got 1: ('1',)"),
        ("--optimizer.lr nan", "--optimizer.lr nan: expected a finite number"),
        ("--optimizer.lr -1e-3", "--optimizer.lr -1e-3: must be more than 0, got -0.001"),
        ("--model.path=", "--model.path '': expected path, got ''"),
        ("--epochs=", "--epochs '': expected float, got ''"),
        ("--max-steps 3 --max_steps 4", "--max-steps 3 and --max_steps 4 set the same option"),
        ("--dataset.shuffle --no-dataset.shuffle", "--dataset.shuffle and --no-dataset.shuffle set the same option"),
        ("--save none --save Save", "--save none and --save Save set the same option"),
        ("–max-steps 3", "'–max-steps' begins with a typographic dash"),
        ("—max-steps=3", "'—max-steps=3' begins with a typographic dash"),
        ("--optimizer.lr inf", "--optimizer.lr inf: expected a finite number"),
        (
            "--model.dtype fp16",
            "--model.dtype fp16: expected one of 'auto', 'float32', 'bfloat16', 'float16', got 'fp16'",
        ),
        ("--optimizer Adam", "--optimizer Adam: expected AdamW, Adafactor, SGD, or a config"),
        ("--optimizer none", "--optimizer none: optimizer cannot be switched off"),
        ("--save off", "--save off: expected Save, none, or a config"),
        ("--dataset tiny", "--dataset tiny: projects/tiny/default.py:6: expected DatasetConfig, got Train"),
        ("--optimizer texts", "--optimizer texts: projects/texts/default.py:6: expected OptimizerConfig, got Dataset"),
        ("--dataset texts/defualt", "--dataset texts/defualt: no config 'texts/defualt'; did you mean"),
    ],
)
def test_a_wrong_flag_is_refused_by_name(refuse: Callable[..., ConfigError], words: str, message: str) -> None:
    assert refuse(*words.split()).message.startswith(message)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--no-shuffle", "did you mean --no-dataset.shuffle?"),
        ("--no-save", "hint: --save none switches it off"),
        ("--no-memory", "hint: memory cannot be switched off"),
        ("--no-dataset", "hint: dataset cannot be switched off"),
        ("--optimizer SGD --optimizer.betas 1,2", "SGD has no betas; it has lr, weight_decay, rounding"),
        ("--optimizer.lrr 1", "did you mean --optimizer.lr?"),
        ("--optimizer.batch-size 1", "did you mean --batch-size?"),
        ("--optimizer sgd", "hint: write --optimizer SGD"),
        ("--schedule LINEAR", "hint: write --schedule Linear"),
        ("--save false", "hint: write --save none"),
        ("--save true", "hint: write --save Save"),
        ("--dataset.format TEXT", "did you mean 'text'?"),
        ("--Max-steps 3", "did you mean --max-steps?"),
        ("--eval.prompts -hello", "a value that begins with - is joined: --eval.prompts=-hello"),
        ("--optimizer.betas 0.9 0.95", "a list is one word: --optimizer.betas 0.9,0.95"),
        ("epochs=3", "hint: write --epochs=3"),
        ("--dataset.train [1]", "expected str, got int 1"),
        ('--dataset.train ["a",null]', "expected str, got None"),
    ],
)
def test_what_to_write_instead_is_told(refuse: Callable[..., ConfigError], words: str, told: str) -> None:
    error = refuse(*words.split())
    assert told in f"{error.message}\nhint: {error.hint}"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--model models/base", "write --model.path models/base"),
        ("--model //models/base", "write --model.path //models/base"),
        ("--model hf:org/name", "write --model.path hf:org/name"),
        ("--dataset models", "write --dataset.source models"),
        ("--dataset texts/a.txt", "write --dataset.source texts/a.txt"),
        ("--dataset hf:org/name", "write --dataset.source hf:org/name"),
    ],
)
def test_a_place_is_the_option_of_a_section_and_no_config(
    workspace: Path, refuse: Callable[..., ConfigError], words: str, told: str
) -> None:
    (workspace / "models" / "base").mkdir(parents=True)
    (workspace / "models" / "base" / "config.json").write_text("{}")
    assert refuse(*words.split()).hint == told


def test_a_section_is_found_by_name_only_inside_a_workspace(workspace: Path) -> None:
    with pytest.raises(ConfigError, match="expected DatasetConfig, or a config"):
        apply(load("tiny").cls, ["--dataset", "texts"], None)


def test_flags_do_not_hide_a_section_that_is_wrong_in_the_file(workspace: Path) -> None:
    class Train(load("tiny").cls):  # type: ignore[misc]
        schedule = "cosine"
        optimizer = Constant

    with pytest.raises(ConfigError) as error:
        resolve(apply(Train, ["--seed", "3"], workspace))
    assert "schedule: expected ScheduleConfig, got 'cosine'" in error.value.message
    assert "optimizer: expected OptimizerConfig, got the class Constant" in error.value.message


def test_every_value_as_it_is_shown_is_understood_by_its_flag(workspace: Path) -> None:
    cls = load("tiny").cls
    for row in rows(cls):
        again = apply(cls, [f"{flag_of(row.path)}={render.text_of(row.value, workspace)}"], workspace)
        assert next(r.value for r in rows(again) if r.path == row.path) == row.value
