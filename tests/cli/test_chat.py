"""`lc chat`: lines in, replies out, the conversation kept."""

import io
import json
import sys

import pytest

from lovecraft import ServeConfig
from lovecraft.chat_template import render
from lovecraft.errors import ModelError
from lovecraft.serve.service import Service, load
from tests.serving import Made, running
from tests.tiny import tiny_model_dir

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


@pytest.fixture
def model(tmp_path):
    path = tiny_model_dir(tmp_path / "model")
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return path


def test_replies_follow_the_conversation_so_far(lc, model, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Hello.\nAnd then?\n/save {tmp_path}/talk.json\n/quit\n"))

    outcome = lc("chat", model, "--max-tokens", "4", "--system", "Be brief.")

    assert outcome.code == 0
    messages = json.loads((tmp_path / "talk.json").read_text())
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert (
        outcome.out.splitlines()[0] in messages[2]["content"] or messages[2]["content"] == outcome.out.splitlines()[0]
    )


def test_a_command_that_is_none_is_said_and_the_conversation_goes_on(lc, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/tell\n/save nowhere/talk.json\nHello.\n"))

    outcome = lc("chat", model, "--max-tokens", "2")

    assert "no command /tell" in outcome.err
    assert "nowhere/talk.json cannot be written" in outcome.err
    assert outcome.code == 0
    assert outcome.out


def test_commands_are_listed_first_and_answered(lc, model, monkeypatch, tmp_path):
    lines = f"/new\n/system Be brief.\n/save {tmp_path}/talk.json\n/system\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))

    outcome = lc("chat", model)

    assert outcome.err.splitlines() == [
        f"loading {model}",
        "this is model; /new, /system TEXT, /save FILE and /quit are commands",
        "a new conversation",
        "a new conversation, with this system message",
        f"saved to {tmp_path}/talk.json",
        "a new conversation, without a system message",
    ]
    assert json.loads((tmp_path / "talk.json").read_text()) == [{"role": "system", "content": "Be brief."}]


class Terminal(io.StringIO):
    """A keyboard at which Ctrl-C is pressed, or Ctrl-D."""

    def __init__(self, interrupted: bool) -> None:
        super().__init__()
        self.interrupted = interrupted

    def isatty(self) -> bool:
        return True

    def readline(self, *_: int) -> str:
        if self.interrupted:
            raise KeyboardInterrupt
        return ""


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 0)])
def test_leaving_at_the_prompt_ends_its_line(lc, model, monkeypatch, interrupted, code):
    monkeypatch.setattr(sys, "stdin", Terminal(interrupted))

    outcome = lc("chat", model)

    assert outcome.code == code
    assert outcome.err.endswith("commands\n> \n")


def test_a_model_without_a_template_is_refused_at_once_with_what_to_use_instead(lc, tmp_path):
    path = tiny_model_dir(tmp_path / "model")

    outcome = lc("chat", path)

    assert outcome.code == 2
    assert "no chat template" in outcome.err
    assert "lc generate" in outcome.err
    assert "loading" not in outcome.err


def test_a_template_is_sandboxed_and_may_refuse(model):
    config = json.loads((model / "tokenizer_config.json").read_text())
    for template in ("{{ messages.append(1) }}", "{{ raise_exception('no such role') }}", "{{ ().__class__.__mro__ }}"):
        (model / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
        with pytest.raises(ModelError, match="refuses"):
            render(model, [{"role": "user", "content": "Hello."}])


def test_the_template_equals_transformers(model):
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Yes?"}]

    theirs = AutoTokenizer.from_pretrained(model).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )

    assert render(model, messages) == theirs


def test_a_server_answers_with_the_conversation_so_far(lc, model, monkeypatch, tmp_path):
    served = load(model, ServeConfig(device="cpu", dtype="float32"))
    lines = f"Hello.\nAnd then?\n/save {tmp_path}/talk.json\n"
    with running(Made(Service(["tiny"], "error", served={"tiny": served}), served.engine)) as server:
        monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
        there = lc("chat", "--url", server.url, "--max-tokens", "6", "--temperature", "0")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    here = lc("chat", model, "--max-tokens", "6", "--temperature", "0")

    assert there.err.splitlines()[0] == "this is tiny; /new, /system TEXT, /save FILE and /quit are commands"
    assert there.code == 0
    assert there.out == here.out
    messages = json.loads((tmp_path / "talk.json").read_text())
    assert [m["role"] for m in messages] == ["user", "assistant"] * 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "--url", "http://127.0.0.1:1"], "the server decides what runs"),
        (["--url", "http://127.0.0.1:1", "--checkpoint", "best"], "--checkpoint has no effect with --url"),
        (["model", "--model", "x"], "--model goes with --url"),
        (["--url", "http://127.0.0.1:1"], "cannot reach"),
    ],
)
def test_flags_without_effect_are_refused(lc, words, said):
    outcome = lc("chat", *words)
    assert outcome.code == 2
    assert said in outcome.err
