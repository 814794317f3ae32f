"""TAB: what is offered, from what, how fast it can be; and the three shells for real."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lovecraft.cli import COMMANDS, candidates, command_of, completion
from lovecraft.config import modules
from tests.cli.terminal import Terminal

Command = Callable[..., Any]


def offered(line: str) -> list[str]:
    """Return the candidates for a line."""
    return list(candidates.complete(line)[2])


def tab(shell: str, line: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Press TAB as a printed script does."""
    command = [sys.executable, "-P", "-m", completion.CANDIDATES, shell, line, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())


def cache(workspace: Path, name: str) -> Path:
    return workspace / completion.CACHE / name


# --- what is offered --------------------------------------------------------------------------------


def test_the_first_word_is_a_command_with_its_line(workspace: Path) -> None:
    assert candidates.complete("lc ")[2] == COMMANDS
    assert offered("lc tr") == ["train"]
    assert offered("lc nothing ") == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("lc data t", ["texts", "texts/default", "tiny", "tiny/default"]),
        ("lc plan t", ["tiny", "tiny/default"]),
        ("lc show te", ["texts", "texts/default", "texts/"]),
        ("lc plan projects/tiny/d", ["projects/tiny/default.py"]),
        ("lc show tiny/", ["tiny/default"]),
        ("lc diff tiny te", ["texts", "texts/default"]),
        ("lc show texts:", ["texts:Dataset"]),
        ("lc ls ti", ["tiny"]),
        ("lc completion ", ["bash", "zsh", "fish"]),
        ("lc new ", ["project", "config"]),
        ("lc new project ", []),
        ("lc new project x --from tin", ["tiny", "tiny/default"]),
        ("lc data tiny --split ", ["train", "validation", "test"]),
        ("lc data tiny --split=t", ["--split=train", "--split=test"]),
        ("lc generate tiny --cont", ["--context"]),
        ("lc serve tiny --context ", ["error", "stop", "roll"]),
        ("lc serve tiny --serve", []),
        ("lc show tiny --why optimizer.l", ["optimizer.lr"]),
        ("lc show tiny --diff=p", ["--diff=parent"]),
        ("lc show tiny --diff=te", ["--diff=texts", "--diff=texts/default"]),
        ("lc help tr", ["train"]),
        ("lc build tiny ", ["dataset", "model"]),
        ("lc build texts t", []),
        ("lc build texts --bpe BPE t", ["tokenizer"]),
        ("lc train tiny --max-s", ["--max-steps"]),
        ("lc train tiny --max-steps ", ["none"]),
        ("lc train tiny --batch-size ", []),
        ("lc train --n", ["--new"]),
        ("lc stop tiny --s", ["--save"]),
        ("lc ls --max", []),
    ],
)
def test_what_a_command_takes_is_offered(lc: Command, workspace: Path, line: str, found: list[str]) -> None:
    lc("show", "tiny")
    assert offered(line) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--optimizer ", ["AdamW", "Adafactor", "SGD"]),
        ("--optimizer=A", ["--optimizer=AdamW", "--optimizer=Adafactor"]),
        ("--optimizer Adafactor --optimizer.cl", ["--optimizer.clip-threshold"]),
        ("--optimizer=SGD --optimizer.be", []),
        ("--save ", ["Save", "none"]),
        ("--save none --save.", []),
        ("--dataset ", ["texts", "texts/default"]),
        ("--dataset.bl", ["--dataset.block-size"]),
        ("--dataset.format=js", ["--dataset.format=jsonl"]),
        ("--no-dataset.sh", ["--no-dataset.shuffle"]),
        ("--dataset.shuffle f", ["false"]),
        ("--dataset.shuffle=", ["--dataset.shuffle=true", "--dataset.shuffle=false"]),
        ("--dataset.add-bos ", ["true", "false", "none"]),
        ("--dataset.source te", ["texts/"]),
        ("--dataset.source=texts/a", ["--dataset.source=texts/a.txt"]),
        ("--dataset.tokenizer ./tex", ["./texts/"]),
    ],
)
def test_an_option_and_what_it_can_be_is_offered(lc: Command, workspace: Path, line: str, found: list[str]) -> None:
    lc("show", "tiny")
    assert [word for word in offered(f"lc train tiny {line}") if not (line[-1:] == " " and word[0] == "-")] == found


def test_every_option_of_the_library_is_offered_with_its_sentence(workspace: Path) -> None:
    found = candidates.complete("lc train tiny --")[2]
    assert found["--batch-size"] == "Blocks in one forward pass."
    assert found["--optimizer.betas"] == "Decay rates of the two moments."
    assert found["--new"].startswith("start another run")


def test_runs_and_models_are_offered(workspace: Path) -> None:
    for name in ("001", "002"):
        (workspace / "runs/tiny/default" / name).mkdir(parents=True)
        (workspace / "runs/tiny/default" / name / "record.json").write_text("{}")
    (workspace / "models/tiny").mkdir(parents=True)
    (workspace / "models/tiny/config.json").write_text("{}")
    (workspace / "x.gguf").write_text("")
    assert offered("lc stop tiny/default/") == ["tiny/default/001", "tiny/default/002"]
    assert offered("lc generate m") == ["models/tiny", "models/"]
    assert offered("lc show x") == ["x.gguf"]
    assert "--max-steps" in offered("lc train tiny/default/001 --")


def test_a_name_that_a_shell_would_read_otherwise_is_quoted_or_left_out(workspace: Path, write: Command) -> None:
    write("a b$(x)/c.txt", "")
    (workspace / "a b\x1b[2J").mkdir()
    line = "lc train tiny --dataset.source="
    assert tab("bash", f"{line}a", "=: ").stdout == "a\\ b\\$\\(x\\)/\n"
    assert tab("bash", f'{line}"a ', "=: ").stdout == "a b$(x)/\n"
    assert tab("bash", f"{line}a\\ b", "").stdout == "--dataset.source=a\\ b\\$\\(x\\)/\n"


def test_in_a_project_its_options_are_offered_without_naming_it(
    lc: Command, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert offered("lc train --max-s") == []
    monkeypatch.chdir(workspace / "projects/tiny")
    assert offered("lc train --max-s") == ["--max-steps"]


def test_outside_of_a_workspace_commands_and_flags_are_offered(tmp_path: Path) -> None:
    assert offered("lc in") == ["init"]
    assert offered("lc show ") == []
    assert "--json" in offered("lc show --")


def test_every_usage_line_is_understood(workspace: Path) -> None:
    places = {name: candidates.places(command_of(name)[0]) for name in COMMANDS}
    assert places["new"] == [["project", "config"], []]
    assert places["diff"] == [["@config", "@run"], ["@config", "@run"]]
    assert places["doctor"] == []
    for name in ("show", "data", "build", "plan", "train", "eval", "serve", "generate", "chat", "edit", "shell"):
        assert {"@config", "@Train"} & set(places[name][0]), name


def test_a_module_that_cannot_be_read_hides_no_other(workspace: Path) -> None:
    (workspace / "projects/texts/gone.py").symlink_to("nowhere.py")
    (workspace / "projects/texts/folder.py").mkdir()
    assert offered("lc edit te") == ["texts", "texts/default", "texts/folder", "texts/gone"]
    assert "cannot be read" in candidates.complete("lc show texts/g")[2]["texts/gone"]


# --- the cache ----------------------------------------------------------------------------------------


OWN = """
    from typing import Literal
    from lovecraft import Adafactor, Config, derived
    import workspace
    from projects.texts import default


    class Tone(Config):
        dark: bool = True
        '''Whether it is night.'''


    class Dataset(default.Dataset):
        era: Literal["early", "late"] = "early"
        '''Which of the stories.'''


    class Train(workspace.Train):
        dataset = Dataset
        optimizer = Adafactor
        save = None
        tone: type[Tone] = Tone
        '''How it sounds.'''

        @derived
        def seed(self) -> int:
            return int(self.tone.dark and self.dataset.era == "late")
"""


def test_what_a_config_is_made_of_is_offered_after_it_was_loaded(lc: Command, workspace: Path, write: Command) -> None:
    write("projects/own/default.py", OWN)
    assert "--save.every" in offered("lc train own --save.")  # the library's, until then
    assert offered("lc train own --dataset.er") == []

    assert lc("show", "own").code == 0

    assert offered("lc train own --save.") == []
    assert offered("lc train own --optimizer.cl") == ["--optimizer.clip-threshold"]
    assert candidates.complete("lc train own --dataset.er")[2] == {"--dataset.era": "Which of the stories."}
    assert offered("lc train own --dataset.era ")[:2] == ["early", "late"]
    assert candidates.complete("lc train own --to")[2] == {
        "--tone": "How it sounds.",
        "--tone.dark": "Whether it is night.",
    }
    assert offered("lc train own --no-to") == ["--no-tone.dark"]
    assert offered("lc data own:Dataset --er") == []  # another config of the same module, never loaded
    assert lc("show", "own:Dataset").code == 0
    assert offered("lc data own:Dataset --er") == ["--era"]


def test_two_workspaces_do_not_mix(
    lc: Command, workspace: Path, write: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("other/workspace.py", (workspace / "workspace.py").read_text().replace("AdamW", "Adafactor"))
    for name in ("texts", "tiny"):
        shutil.copytree(workspace / "projects" / name, tmp_path / "other/projects" / name)
    lc("show", "tiny")
    monkeypatch.chdir(tmp_path / "other")
    lc("show", "tiny")
    assert offered("lc train tiny --optimizer.be") == []
    monkeypatch.chdir(workspace)
    assert offered("lc train tiny --optimizer.be") == ["--optimizer.betas"]


def test_options_of_the_line_are_not_written_down(lc: Command, workspace: Path) -> None:
    lc("show", "tiny", "--optimizer", "SGD")
    assert json.loads(cache(workspace, "tiny/default.Train.json").read_text())["optimizer.betas"] == "AdamW"


def test_a_stale_cache_is_offered_until_the_config_is_loaded_again(lc: Command, workspace: Path) -> None:
    lc("show", "tiny")
    file = workspace / "projects/tiny/default.py"
    file.write_text(file.read_text() + "    save = None\n")
    assert "--save.every" in offered("lc train tiny --save.")
    modules.forget()
    lc("show", "tiny")
    assert offered("lc train tiny --save.") == []


def test_it_is_written_only_when_it_changes(lc: Command, workspace: Path) -> None:
    lc("show", "tiny")
    file = cache(workspace, "tiny/default.Train.json")
    os.utime(file, (1, 1))
    lc("show", "tiny")
    assert file.stat().st_mtime == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"seed": 3}', b'{"seed": "Gone"}', b'{"gone": "SGD"}']
)
def test_a_damaged_cache_is_as_good_as_none(lc: Command, workspace: Path, content: bytes) -> None:
    lc("show", "tiny")
    cache(workspace, "tiny/default.Train.json").write_bytes(content)
    assert offered("lc train tiny --dataset.bl") == ["--dataset.block-size"]
    lc("show", "tiny")
    assert b"AdamW" in cache(workspace, "tiny/default.Train.json").read_bytes()


def test_a_workspace_that_cannot_be_written_is_completed_all_the_same(lc: Command, workspace: Path) -> None:
    (workspace / ".lc").write_text("in the way")
    assert lc("show", "tiny").code == 0
    assert offered("lc train tiny --dataset.bl") == ["--dataset.block-size"]


# --- on its own -----------------------------------------------------------------------------------------


def test_nothing_of_the_workspace_is_run(lc: Command, workspace: Path) -> None:
    lc("show", "tiny")
    (workspace / "workspace.py").write_text("open('was run', 'w')\n")
    shutil.copy(workspace / "workspace.py", workspace / "json.py")
    file = workspace / "projects/tiny/default.py"
    file.write_text("open('was run', 'w')\n" + file.read_text())
    for line in ("lc ", "lc train tiny --", "lc train --dataset ", "lc show tiny:"):
        assert tab("fish", line).stdout
    assert not (workspace / "was run").exists()


def test_each_shell_gets_its_own_form(workspace: Path) -> None:
    assert tab("bash", "lc show texts:D", '"=:').stdout == "Dataset \n"
    assert tab("bash", "lc show texts:D", '"=').stdout == "texts:Dataset \n"
    assert tab("zsh", "lc show texts:D").stdout == "texts\\:Dataset:Three short texts in blocks of 32 tokens.\n"
    assert tab("fish", "lc show texts:D").stdout == "texts:Dataset\tThree short texts in blocks of 32 tokens.\n"


def test_the_script_is_printed_and_another_shell_refused(lc: Command) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = lc("completion", shell)
        assert (done.code, "@CANDIDATES@" in done.out, completion.CANDIDATES in done.out) == (0, False, True)
    assert "source <(lc completion bash)" in lc("completion", "--help").out
    assert "no script for 'tcsh'" in lc("completion", "tcsh").err
    assert lc("completion").code == 2


# --- in the shells ----------------------------------------------------------------------------------------


SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        "PS1='READY''> '; lc() { printf '<%s>' \"$@\"; echo END; }; source <({lc} completion bash)\n",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "PS1='READY''> '; autoload -U compinit; compinit -u -D; lc() { printf '<%s>' \"$@\"; echo END; }; "
        "source <({lc} completion zsh)\n",
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        "function fish_prompt; printf 'READY%s' '> '; end; function lc; printf '<%s>' $argv; echo END; end; "
        "{lc} completion fish | source\n",
    ),
}
"""How each is started bare, and made to show what `lc` is given."""

TYPED = {
    "lc tr\t": "<train>",
    "lc train tin\t": "<train><tiny>",
    "lc train tiny/d\t --max-st\t 3": "<train><tiny/default><--max-steps><3>",
    "lc train tiny --optimizer Adaf\t": "<train><tiny><--optimizer><Adafactor>",
    "lc train tiny --optimizer=Adaf\t --optimizer.cl\t 2": (
        "<train><tiny><--optimizer=Adafactor><--optimizer.clip-threshold><2>"
    ),
    "lc show tiny:Tr\t --json": "<show><tiny:Train><--json>",
    "lc train tiny --no-dataset.sh\t": "<train><tiny><--no-dataset.shuffle>",
    "lc train tiny --dataset.source tex\ta.\t": "<train><tiny><--dataset.source><texts/a.txt>",
    "lc train tiny --dataset.source=tex\ta.\t": "<train><tiny><--dataset.source=texts/a.txt>",
    "lc train tiny --dataset.source=my\t": "<train><tiny><--dataset.source=my dir [x]/>",
    "lc train tiny --dataset.source my\\ d\t": "<train><tiny><--dataset.source><my dir [x]/>",
    "lc tr tiny\x01\x06\x06\x06\x06\x06\t": "<train><tiny>",  # to the line's begin, five letters on
    "true; lc train tiny --new --op\t.l\t 1": "<train><tiny><--new><--optimizer.lr><1>",
}
"""Keys, and what `lc` is given after them."""


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Terminal]:
    """A shell in the workspace, with completion."""
    command, setup = SHELLS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    (workspace / "my dir [x]").mkdir()
    terminal = Terminal(command, workspace, INPUTRC="/dev/null", ZDOTDIR=str(workspace))
    terminal.type(setup.replace("{lc}", f"{sys.executable} -m lovecraft"))
    terminal.until("READY> ")
    yield terminal
    terminal.close()


def test_tab_completes(shell: Terminal) -> None:
    for keys, given in TYPED.items():
        shell.type(keys + "\n")
        shown = shell.until("END").replace("\r", "")
        assert f"{given}END" in shown, f"{keys!r}: {shown!r}"
        shell.until("READY> ")
