"""Fingerprints and records: what identifies a config, and that a record gives back what it was made of."""

import hashlib
import json
import pickle
import shutil
import subprocess
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lovecraft import (
    BPE,
    SGD,
    WSD,
    Adafactor,
    AdamW,
    Constant,
    Cosine,
    DatasetConfig,
    Linear,
    ModelConfig,
    ServeConfig,
    TrainConfig,
    override,
    resolve,
)
from lovecraft.config import base, record, values
from lovecraft.config.diff import entries
from lovecraft.config.load import load
from lovecraft.config.resolve import choices, fingerprint_values, rows
from lovecraft.errors import ConfigError

IGNORED = {"corpus": "0" * 64}


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Right values of an option's type."""
    plain, marks = values.unwrap(hint)
    arguments = typing.get_args(plain)
    if typing.get_origin(plain) is typing.Literal:
        return st.sampled_from(arguments)
    if typing.get_origin(plain) is tuple:
        kinds = [kind for kind in arguments if kind is not Ellipsis]
        return st.tuples(*map(values_of, kinds))
    if plain == values.Location or plain is Path:
        return st.sampled_from([Path("/elsewhere/a"), Path("/w") / "b"])
    if type(None) in arguments:
        kinds = tuple(kind for kind in arguments if kind is not type(None))
        inner = values.Location if kinds == typing.get_args(values.Location) else kinds[0]
        return st.none() | values_of(typing.Annotated[inner, *marks] if marks else inner)
    leaf = {
        int: st.sampled_from([*range(1, 10), 999, 4096]),
        float: st.sampled_from([0.25, 0.5, -0.5, 1.5]),
        bool: st.booleans(),
        str: st.sampled_from(["a", "//b", ""]),
    }[plain]
    return leaf.filter(lambda value: all(mark.holds(value) for mark in marks if isinstance(mark, values.Check)))


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Overrides of a training config: swapped sections, sections switched off, values of any option in use."""
    found: dict[str, Any] = {}
    if draw(st.booleans()):
        found["optimizer"] = draw(st.sampled_from([AdamW, Adafactor, SGD]))
    if draw(st.booleans()):
        found["schedule"] = draw(st.sampled_from([Constant, Linear, Cosine, WSD]))
    for name in ("save", "eval"):
        if draw(st.booleans()):
            found[name] = None
    paths = [row for row in rows(override(WHOLE, found)) if row.option.section is None]
    for row in draw(st.lists(st.sampled_from(paths), max_size=6, unique_by=lambda row: row.path)):
        found[row.path] = draw(values_of(row.option.hint))
    return found


class Whole(TrainConfig):
    """A complete training config."""


WHOLE = override(Whole, {"dataset.source": Path("/w/texts"), "model.path": Path("/w/model")})


def made(cls: Any, root: Path) -> dict[str, Any]:
    """Return the record of a config, as it is read back from its file."""
    found = {
        "format": record.FORMAT,
        "class": "TrainConfig",
        "options": [attrs.asdict(entry) for entry in entries(cls, root)],
        "own": [row.path for row in rows(cls) if row.own],
    }
    return dict(json.loads(json.dumps(found)))


# --- replay -----------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(changes())
def test_a_record_replays_to_the_same_fingerprint_and_the_same_values(found: dict[str, Any]) -> None:
    root = Path("/w")
    cls = override(WHOLE, found)
    again = record.replay(made(cls, root), root)
    assert record.fingerprint(again, root) == record.fingerprint(cls, root)
    assert attrs.asdict(resolve(again)) == attrs.asdict(resolve(cls))
    assert [e.value for e in entries(again, root)] == [e.value for e in entries(cls, root)]


def test_a_users_config_replays_without_the_users_module(workspace: Path, define: Callable[..., Any]) -> None:
    cls = define(
        """
        import workspace
        from lovecraft import AdamW, derived
        from projects.texts import default

        class Dataset(default.Dataset):
            @derived
            def stride(self) -> int:
                return self.block_size // 4

        class Train(workspace.Train):
            dataset = Dataset
            tokens: int = 128
            second: type[AdamW] = AdamW

            @derived
            def batch_size(self) -> int:
                return self.second and self.tokens // self.dataset.block_size
        """
    )
    written = record.make(cls, "p/c", workspace, IGNORED)
    record.write(workspace / "record.json", written)
    (workspace / "projects/p/c.py").unlink()
    again = record.replay(record.read(workspace / "record.json"), workspace)
    config = resolve(again)
    assert (config.batch_size, config.dataset.stride) == (4, 8)
    assert config.dataset.source == workspace / "texts"
    assert record.fingerprint(again, workspace) == written["fingerprint"]
    assert written["own"] == ["tokens", *(f"second.{name}" for name in AdamW.__options__)]


def test_a_replayed_config_keeps_the_origins_it_recorded(workspace: Path) -> None:
    written = record.make(load("tiny").cls, "tiny/default", workspace, IGNORED)
    found = {e.path: e.origin for e in entries(record.replay(written, workspace), workspace)}
    assert found == {e["path"]: e["origin"] for e in written["options"]}


def test_a_replayed_config_can_be_overridden_further_and_pickled(workspace: Path) -> None:
    written = record.make(load("tiny").cls, "tiny/default", workspace, IGNORED)
    again = resolve(override(record.replay(written, workspace), {"optimizer.lr": 0.5, "dataset.block_size": 16}))
    assert (again.optimizer.lr, again.dataset.block_size, again.dataset.stride) == (0.5, 16, 8)
    assert pickle.loads(pickle.dumps(again)) == again


def test_a_record_moves_with_its_workspace(workspace: Path) -> None:
    written = record.make(load("tiny").cls, "tiny/default", workspace, IGNORED)
    moved = record.replay(written, Path("/elsewhere"))
    assert resolve(moved).dataset.source == Path("/elsewhere/texts")
    assert record.fingerprint(moved, Path("/elsewhere")) == written["fingerprint"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class": "Popen"}, "the record is of the unknown class 'Popen'"),
        ({"class": "AdamW"}, "the record is of the unknown class 'AdamW'"),
        ({"path": "optimizer", "value": "os.system"}, "the record's optimizer is the unknown class 'os.system'"),
        ({"path": "optimizer", "value": "Cosine"}, "the record's optimizer is the unknown class 'Cosine'"),
        ({"path": "sead", "value": 1}, "the record has the option 'sead', which this lovecraft does not have"),
        ({"path": "seed", "value": "1"}, "written there: seed: expected int, got str '1'; write 1"),
        ({"path": "seed", "value": 1.0}, "written there: seed: expected int, got float 1.0; write 1"),
        ({"path": "max_steps", "value": 0}, "written there: max_steps: must be more than 0, got 0"),
    ],
)
def test_a_record_can_name_only_what_the_library_has(workspace: Path, change: dict[str, Any], message: str) -> None:
    written = record.make(load("tiny").cls, "tiny/default", workspace, IGNORED)
    if "class" in change:
        written["class"] = change["class"]
    else:
        others = [row for row in written["options"] if row["path"] != change["path"]]
        written["options"] = [*others, {"type": "", "origin": "written there", **change}]
    with pytest.raises(ConfigError) as error:
        resolve(record.replay(written, workspace))
    assert error.value.message == message


# --- the fingerprint --------------------------------------------------------------------------------


@pytest.fixture
def tiny(workspace: Path) -> Any:
    """Return the workspace's training config."""
    return load("tiny").cls


@pytest.mark.parametrize(
    "quiet",
    [
        {"save": None},
        {"save.every": 3},
        {"eval": None},
        {"eval.prompts": ("a",)},
        {"log.every": 7},
        {"memory.checkpointing": "block"},
        {"device": "cuda"},
        {"max_minutes": 3},
    ],
)
def test_options_without_effect_on_the_result_do_not_count(tiny: Any, workspace: Path, quiet: dict[str, Any]) -> None:
    assert record.fingerprint(override(tiny, quiet), workspace) == record.fingerprint(tiny, workspace)


@pytest.mark.parametrize(
    "loud",
    [
        {"optimizer": SGD},
        {"schedule": Cosine},
        {"optimizer.lr": 2e-3},
        {"optimizer.eps": 1e-9},
        {"dataset.block_size": 31},
        {"dataset.source": Path("/other")},
        {"model.dtype": "bfloat16"},
        {"seed": 1},
        {"max_steps": None},
    ],
)
def test_options_with_effect_on_the_result_count(tiny: Any, workspace: Path, loud: dict[str, Any]) -> None:
    assert record.fingerprint(override(tiny, loud), workspace) != record.fingerprint(tiny, workspace)


KINDS = {"Train": TrainConfig, "Dataset": DatasetConfig, "Model": ModelConfig, "Serve": ServeConfig}
QUIET = ("save", "eval", "log", "memory", "device", "max_minutes", "stop_on_spike")
COMPLETE = {
    "Train": {"dataset.source": Path("/w/texts"), "model.path": Path("/w/model")},
    "Dataset": {"source": Path("/w/texts")},
    "Model": {"path": Path("/w/model")},
    "Serve": {},
}


def every_option() -> list[Any]:
    """Return (kind, swaps, path) of every option there is: of each class that a section can be, once."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for kind, cls in KINDS.items():
        whole = override(cls, COMPLETE[kind])
        swaps: list[dict[str, Any]] = [{}]
        for row in rows(whole):
            if row.option.section is not None:
                swaps += [{row.path: section} for section in choices(row.option.section).values()]
        for swap in swaps:
            for row in rows(override(whole, swap)):
                found.setdefault((kind, base.library_class(row.owner).__name__, row.path), swap)
    return [pytest.param(kind, swap, path, id=f"{owner}.{path}") for (kind, owner, path), swap in found.items()]


@pytest.mark.parametrize(("kind", "swaps", "path"), every_option())
@settings(max_examples=8)
@given(st.data())
def test_an_option_counts_unless_it_is_quiet(kind: str, swaps: dict[str, Any], path: str, data: st.DataObject) -> None:
    root = Path("/w")
    cls = override(override(KINDS[kind], COMPLETE[kind]), swaps)
    (row,) = [row for row in rows(cls) if row.path == path]
    if row.option.section is None:
        value = data.draw(values_of(row.option.hint))
    else:
        value = data.draw(st.sampled_from([*choices(row.option.section).values(), *[None] * row.option.optional]))
    named = value.__name__ if isinstance(value, type) else value
    same = record.fingerprint(override(cls, {path: value}), root) == record.fingerprint(cls, root)
    quiet = kind == "Train" and path.partition(".")[0] in QUIET
    assert same == (quiet or named == row.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer.weight_decay": 0.0}, {"optimizer.weight_decay": -0.0}),
        ({"epochs": 1}, {"epochs": 1.0}),
        ({"epochs": 1000}, {"epochs": 1e3}),
        ({"model.path": Path("/w/models/a")}, {"model.path": Path("/w/x/../models/./a/")}),
        ({"model.path": Path("/w/models/a")}, {"model.path": "/w/models/a"}),
        ({"model.path": Path("/models/a")}, {"model.path": "//models/a"}),  # and not below the root
        ({"eval": None}, {"eval.every": 3}),
    ],
)
def test_two_spellings_of_a_value_are_the_same_config(one: dict[str, Any], other: dict[str, Any]) -> None:
    root = Path("/w")
    assert record.fingerprint(override(WHOLE, one), root) == record.fingerprint(override(WHOLE, other), root)
    for changes in (one, other):
        again = record.replay(made(override(WHOLE, changes), root), root)
        assert resolve(again).model.path == resolve(override(WHOLE, changes)).model.path


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"model.path": Path("/w/models/a")}, {"model.path": Path("/models/a")}),
        ({"dataset.train": ("a", "b")}, {"dataset.train": ("b", "a")}),
        ({"dataset.train": ("a,b",)}, {"dataset.train": ("a", "b")}),
        ({"dataset.test": ("",)}, {"dataset.test": ()}),
        ({"dataset.add_bos": None}, {"dataset.add_bos": False}),
        ({"max_steps": None}, {"max_steps": 1}),
        ({"model.path": "hf:a/b"}, {"model.path": Path("/hf:a/b")}),
    ],
)
def test_two_values_are_two_configs(one: dict[str, Any], other: dict[str, Any]) -> None:
    root = Path("/w")
    assert record.fingerprint(override(WHOLE, one), root) != record.fingerprint(override(WHOLE, other), root)


def test_a_config_in_another_module_of_a_moved_workspace_is_the_same_config(
    tiny: Any, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = record.fingerprint(tiny, workspace)
    elsewhere = Path(shutil.move(workspace / "projects", tmp_path_factory.mktemp("moved"))).parent
    shutil.move(workspace / "workspace.py", elsewhere)
    (elsewhere / "projects" / "tiny").rename(elsewhere / "projects" / "other")
    (elsewhere / "projects" / "other" / "default.py").rename(elsewhere / "projects" / "other" / "long.py")
    moved = load("other/long", root=elsewhere)
    assert resolve(moved.cls).model.path == elsewhere / "models" / "tiny"
    assert record.fingerprint(moved.cls, elsewhere) == before


def test_a_swapped_section_counts_even_if_all_its_options_have_the_same_values(tiny: Any, workspace: Path) -> None:
    linear = override(tiny, {"schedule": Linear})
    cosine = override(tiny, {"schedule": Cosine})
    assert record.fingerprint(linear, workspace) != record.fingerprint(cosine, workspace)


def test_an_int_for_a_float_option_is_the_same_config(tiny: Any, workspace: Path) -> None:
    one, same = override(tiny, {"epochs": 2}), override(tiny, {"epochs": 2.0})
    assert record.fingerprint(one, workspace) == record.fingerprint(same, workspace)


def test_names_of_users_classes_origins_and_own_options_do_not_count(
    tiny: Any, workspace: Path, define: Callable[..., Any]
) -> None:
    renamed = define(
        """
        from lovecraft import derived
        from projects.tiny import default

        class Steps(default.Train.optimizer):
            lr = 1e-3  # for a reason

        class Texts(default.Train.dataset):
            stride = 8

        class Train(default.Train):
            dataset = Texts
            optimizer = Steps
            helper: int = 2

            @derived
            def batch_size(self) -> int:
                return self.helper
        """
    )
    assert record.fingerprint(renamed, workspace) == record.fingerprint(tiny, workspace)


def test_a_value_derived_or_written_is_the_same_config(tiny: Any, workspace: Path, define: Callable[..., Any]) -> None:
    computed = define(
        """
        from lovecraft import derived
        from projects.tiny import default

        class Train(default.Train):
            @derived
            def batch_size(self) -> int:
                return self.dataset.block_size // 16
        """
    )
    assert record.fingerprint(computed, workspace) == record.fingerprint(tiny, workspace)


def test_the_fingerprint_is_the_hash_of_the_values_as_canonical_json() -> None:
    """Whoever changes this breaks the resume of every run there is."""
    cls = override(BPE, {"vocab_size": 300})
    assert record.fingerprint(cls, None) == hashlib.sha256(b'{"min_frequency":2,"vocab_size":300}').hexdigest()[:16]
    model = override(ModelConfig, {"path": Path("/w/models/a")})
    assert fingerprint_values(model, Path("/w"))["path"] == "//models/a"


# --- files ------------------------------------------------------------------------------------------


def test_a_record_holds_all_that_is_needed_later(tiny: Any, workspace: Path) -> None:
    written = record.make(tiny, "tiny/default", workspace, IGNORED)
    record.write(workspace / "record.json", written)
    assert record.read(workspace / "record.json") == written
    assert list(written) == [
        "format",
        "config",
        "class",
        "fingerprint",
        "options",
        "own",
        "inputs",
        "versions",
        "git",
        "argv",
        "created",
        "changes",
    ]
    assert (written["config"], written["class"], written["inputs"]) == ("tiny/default", "TrainConfig", IGNORED)
    assert written["versions"]["python"]
    assert written["git"] is None  # the workspace of this test is under no version control
    assert str(workspace) not in json.dumps(written["options"])


def git(where: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(where), *identity, *words], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("workspace.py", True),  # tracked, and changed
        ("notes.md", False),
        ("runs/001/record.json", False),
        ("projects/tiny/other.py", True),
        ("projects/new/default.py", True),
    ],
)
def test_the_commit_of_the_workspace_is_recorded_and_whether_it_is_all_there_is(
    tiny: Any, workspace: Path, write: Callable[[str, str], Path], name: str, dirty: bool
) -> None:
    git(workspace, "init", "-q")
    assert record.make(tiny, "tiny/default", workspace, IGNORED)["git"] is None  # there is no commit
    git(workspace, "add", "workspace.py", "projects")
    git(workspace, "commit", "-qm", "first")
    shutil.rmtree(workspace / "projects" / "tiny" / "__pycache__", ignore_errors=True)
    clean = record.make(tiny, "tiny/default", workspace, IGNORED)["git"]
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    write(name, "# a change\n")
    assert record.make(tiny, "tiny/default", workspace, IGNORED)["git"] == {**clean, "dirty": dirty}


def test_a_workspace_in_a_folder_of_a_repository_is_dirty_while_git_does_not_know_it(
    tiny: Any, workspace: Path
) -> None:
    (workspace / "above").mkdir()
    inner = workspace / "above" / "inner"
    shutil.copytree(workspace / "projects", inner / "projects")
    shutil.copy(workspace / "workspace.py", inner)
    git(workspace / "above", "init", "-q")
    git(workspace / "above", "commit", "-qm", "first", "--allow-empty")
    assert record.make(tiny, "tiny/default", inner, IGNORED)["git"]["dirty"] is True
    git(workspace / "above", "add", ".")
    git(workspace / "above", "commit", "-qm", "second")
    assert record.make(tiny, "tiny/default", inner, IGNORED)["git"]["dirty"] is False


def test_without_git_no_commit_is_recorded(tiny: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(workspace, "init", "-q")
    monkeypatch.setenv("PATH", "")
    assert record.make(tiny, "tiny/default", workspace, IGNORED)["git"] is None


def test_nothing_of_the_environment_is_recorded(tiny: Any, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setattr("sys.argv", ["lc", "sesame"])
    written = json.dumps(record.make(tiny, "tiny/default", workspace, IGNORED, ["train", "tiny"]))
    assert "verysecret" not in written
    assert "sesame" not in written
    assert '"argv": ["train", "tiny"]' in written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable record"),
        ("{", "not a readable record"),
        ("[]", "not a record: it is no JSON object"),
        ("3", "not a record: it is no JSON object"),
        ('{"format": 1}', "not a record: it has no 'config'"),
        ('{"format": 0}', "format 0, but this lovecraft reads 1"),
        ('{"format": 99}', "format 99, but this lovecraft reads 1"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        record.read(path)
    assert error.value.message.startswith(f"{path}: {message}")


@pytest.mark.parametrize("options", [[{}], [{"path": "seed", "value": 1, "type": "", "origin": "", "more": 1}], [3]])
def test_a_record_with_damaged_options_is_refused(tiny: Any, workspace: Path, options: Any) -> None:
    path = workspace / "record.json"
    record.write(path, {**record.make(tiny, "tiny/default", workspace, IGNORED), "options": options})
    with pytest.raises(ConfigError, match="its options are damaged"):
        record.read(path)


@pytest.mark.parametrize(
    "damage",
    [
        {"config": 3},
        {"config": "../../elsewhere"},
        {"config": "/etc/x"},
        {"config": ""},
        {"class": None},
        {"fingerprint": 3},
        {"own": "tokens"},
        {"inputs": []},
        {"changes": {}},
        {"changes": [3]},
        {"changes": [{"options": [{"path": "seed"}]}]},
        {"created": None},
    ],
)
def test_a_record_that_is_damaged_anywhere_is_refused(tiny: Any, workspace: Path, damage: dict[str, Any]) -> None:
    path = workspace / "record.json"
    record.write(path, {**record.make(tiny, "tiny/default", workspace, IGNORED), **damage})
    with pytest.raises(ConfigError, match=r"record\.json: "):
        record.read(path)


def test_a_missing_record_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing/record.json: not a readable record"):
        record.read(tmp_path / "nothing" / "record.json")
