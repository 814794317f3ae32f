"""What the word on the command line names: a run, a model, or a config of the right kind."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lovecraft import resolve
from lovecraft.cli import target
from lovecraft.config import record
from lovecraft.config.load import load
from lovecraft.errors import ConfigError, LovecraftError, RunError
from lovecraft.runs import create

Write = Callable[[str, str], Path]


def arguments(word: str | None, *options: str) -> argparse.Namespace:
    """Return what `main` gives a command."""
    return argparse.Namespace(target=word, options=list(options))


@pytest.fixture
def run(workspace: Path) -> Path:
    """Make a run of the workspace's training config."""
    directory = workspace / "runs" / "tiny" / "default" / "001"
    record.write(directory / "record.json", record.make(load("tiny").cls, "tiny/default", workspace, {}))
    return directory


# --- runs and models --------------------------------------------------------------------------------


def test_a_run_is_named_by_path_by_record_and_by_config_and_number(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("tiny/default/001", "runs/tiny/default/001", "runs/tiny/default/001/", str(run), f"{run}/record.json"):
        assert target.find_run(word) == run
    monkeypatch.chdir(run)
    for word in (".", "record.json", "tiny/default/001"):
        assert target.find_run(word) == run


@pytest.mark.parametrize(
    "word",
    [None, "", "tiny", "tiny/default", "projects/tiny/default.py", "tiny/default/002", "001", "runs/tiny", "hf:a/b"],
)
def test_what_is_no_run_is_none(run: Path, word: str | None) -> None:
    assert target.find_run(word) is None


def test_outside_a_workspace_only_paths_name_runs(
    run: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert target.find_run("tiny/default/001") is None
    assert target.find_run(str(run)) == run
    assert target.load_config(arguments(str(run))).name == "tiny/default"


def test_a_model_is_a_directory_with_a_config_or_a_gguf_file(workspace: Path, write: Write) -> None:
    write("models/a/config.json", "{}")
    write("models/b.gguf", "")
    write("models/empty/readme", "")
    assert target.find_model("models/a") == workspace / "models" / "a"
    assert target.find_model("models/b.gguf") == workspace / "models" / "b.gguf"
    for word in (None, "", "models/empty", "models/c.gguf", "tiny", "models/a/config.json"):
        assert target.find_model(word) is None


# --- configs ----------------------------------------------------------------------------------------


def test_a_run_stands_for_the_config_it_recorded_with_flags_after_it(run: Path, workspace: Path) -> None:
    (workspace / "projects/tiny/default.py").unlink()
    loaded = target.load_config(arguments("tiny/default/001", "--seed", "5", "--dataset", "texts"))
    assert (loaded.name, loaded.root) == ("tiny/default", workspace)
    assert resolve(loaded.cls).seed == 5
    assert type(resolve(loaded.cls).dataset).__module__ == "projects.texts.default"


def test_a_record_of_any_name_stands_for_the_config_it_recorded(
    run: Path, workspace: Path, tmp_path_factory: pytest.TempPathFactory, lc: Callable[..., Any]
) -> None:
    kept = (run / "record.json").rename(tmp_path_factory.mktemp("mail") / "mine.json")
    loaded = target.load_config(arguments(str(kept), "--seed", "3"))
    assert (loaded.name, loaded.root, resolve(loaded.cls).seed) == ("tiny/default", workspace, 3)
    assert '"config": "tiny/default"' in lc("show", kept, "--json").out
    assert lc("diff", kept, "tiny").code == 0
    kept.write_text("{}")
    assert "mine.json: not a record" in lc("show", kept).err


def test_options_of_a_config_s_own_are_not_replayed_and_that_is_said(
    workspace: Path, write: Write, lc: Callable[..., Any]
) -> None:
    write(
        "projects/tiny/own.py",
        """
        from lovecraft import Config, derived
        from projects.tiny import default

        class Knob(Config):
            gain: int = 2

        class Train(default.Train):
            knob: type[Knob] = Knob
            half: bool = False

            @derived
            def batch_size(self) -> int:
                return self.knob.gain * (1 if self.half else 2)
        """,
    )
    create(workspace, "tiny/own", record.make(load("tiny/own").cls, "tiny/own", workspace, {}))
    for words in (["--why", "knob.gain"], ["--knob.gain", "3"], ["--half"]):
        done = lc("show", "tiny/own/001", *words)
        assert done.code == 2
        assert (
            f"{words[-1 if words[0] == '--why' else 0].removeprefix('--')} is an option of the config's own" in done.err
        )
        assert "hint: give it to the config: tiny/own\n" in done.err
        assert lc("show", "tiny/own", *words).code == 0


def test_a_config_behind_its_options_is_said_to_come_first(workspace: Path, lc: Callable[..., Any]) -> None:
    done = lc("show", "--epochs", "3", "tiny")
    assert done.err.startswith("error: unexpected 'tiny'\n\nhint: the config comes first")


def test_a_number_that_is_no_run_is_said_to_be_none(run: Path) -> None:
    with pytest.raises(RunError, match="no run 'tiny/default/002'"):
        target.load_config(arguments("tiny/default/002"))


def test_a_train_command_takes_a_train_config_only(workspace: Path) -> None:
    config, loaded = target.train_config(arguments("tiny", "--batch-size", "3"))
    assert (config.batch_size, loaded.name) == (3, "tiny/default")
    with pytest.raises(ConfigError, match="texts/default is a Dataset config; this command takes a Train config"):
        target.train_config(arguments("texts"))
    with pytest.raises(ConfigError, match="is a Dataset config"):
        target.train_config(arguments("texts", "--block-size", "16"))  # an override is of the same kind


def test_a_dataset_command_takes_a_dataset_or_that_of_a_train_config(workspace: Path, write: Write) -> None:
    alone, _ = target.dataset_config(arguments("texts", "--block-size", "16"))
    inside, _ = target.dataset_config(arguments("tiny", "--dataset.block-size", "16"))
    assert alone == inside
    write("projects/tiny/model.py", "from workspace import Model as Base\n\nclass Model(Base):\n    pass\n")
    with pytest.raises(ConfigError, match="tiny/model is a Model config; this command takes a Dataset or a Train"):
        target.dataset_config(arguments("tiny/model"))


@pytest.mark.parametrize("find", [target.train_config, target.dataset_config])
def test_options_of_a_dataset_that_do_not_fit_together_are_refused_early(
    workspace: Path, find: Callable[[argparse.Namespace], Any]
) -> None:
    with pytest.raises(ConfigError, match=r"stride \(32\) must be below block_size \(32\)"):
        find(arguments("tiny", "--dataset.stride", "32"))


# --- tokenizers -------------------------------------------------------------------------------------


def test_a_tokenizer_is_the_datasets_own_the_models_or_that_of_the_workspaces_model(
    workspace: Path, write: Write
) -> None:
    def path(word: str, *options: str) -> Path | None:
        return target.tokenizer_path(target.load_config(arguments(word, *options)))

    assert path("tiny") is path("texts") is None  # the model is not there yet
    write("models/tiny/tokenizer.json", "{}")
    write("models/other/tokenizer.json", "{}")
    assert path("tiny") == path("texts") == workspace / "models" / "tiny"
    assert path("tiny", "--model.path", "models/other") == workspace / "models" / "other"
    assert path("texts", "--tokenizer", "elsewhere") == workspace / "elsewhere"
    assert path("tiny", "--dataset.tokenizer", "elsewhere") == workspace / "elsewhere"


@pytest.mark.parametrize("text", ["", "Model = 3\n", "class Model: pass\n", "from lovecraft import AdamW as Model\n"])
def test_a_workspace_need_not_have_a_model(workspace: Path, write: Write, text: str) -> None:
    write("workspace.py", f"from pathlib import Path\nROOT = Path(__file__).parent\n{text}")
    load("texts")
    assert target.workspace_model() is None


def test_a_run_without_a_checkpoint_says_so(run: Path) -> None:
    with pytest.raises(LovecraftError, match="tiny/default/001 has no best checkpoint"):
        target.find_runs_checkpoint(run, "best")
