import subprocess
import sys

import pytest

from lovecraft.engine.request import Finish, Read
from lovecraft.engine.text import TextStream, prompt_ids
from lovecraft.errors import RequestError
from lovecraft.tokenizer import Tokenizer, load_tokenizer
from tests.tiny import tiny_model_dir


def test_pieces_stop_before_the_stop_string(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, [0], stops=["harbour"])
    ids = tokenizer.encode("the room above the harbour. At night")
    shown = ""
    for token in ids:
        shown += stream.take(token)
        if stream.reason:
            break
    assert (shown, stream.reason) == ("the room above the ", "stop")
    assert stream.tokens < len(ids)


def test_what_is_held_comes_with_the_finish(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, [0], stops=["seas"])
    assert [stream.take(token) for token in tokenizer.encode("sea")][-1] == ""
    assert stream.take(Finish("length")) == "sea"
    assert stream.reason == "length"


def test_eos_counts_but_has_no_text(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, [0])
    assert "".join(stream.take(event) for event in (*tokenizer.encode("so"), 1, Finish("stop"))) == "so"
    assert (stream.tokens, stream.reason) == (len(tokenizer.encode("so")) + 1, "stop")


def test_reads_after_the_first_are_rolls(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, [0])
    for event in (None, Read(7), Read(3), Read(3)):
        assert stream.take(event) == ""
    assert (stream.cached, stream.rolls) == (7, 2)


def test_failure_is_raised(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="broken") as caught:
        TextStream(tokenizer, [0]).take(Finish("failed", "broken", "model_error"))
    assert (caught.value.code, caught.value.status) == ("model_error", 500)


def test_prompt_begins_as_the_tokenizer_does(tokenizer: Tokenizer, tmp_path) -> None:
    assert prompt_ids(tokenizer, "so") == [0, *tokenizer.encode("so")]
    assert prompt_ids(tokenizer, "") == [0]
    plain = load_tokenizer(tiny_model_dir(tmp_path / "plain", add_bos=False))
    assert prompt_ids(plain, "so") == plain.encode("so")
    with pytest.raises(RequestError, match="empty"):
        prompt_ids(plain, "")


def test_text_and_queue_need_no_torch() -> None:
    code = "import sys; from lovecraft.engine import engine, text; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
