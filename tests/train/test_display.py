import pytest
from rich.text import Text

from lovecraft.train import display

ROW = {"step": 1, "loss": 4.0, "lr": 1e-4, "tokens_per_second": 512.4, "memory": 2_100_000_000}
IDEAL = 1 / 1250  # seconds a token: 512 tokens a second are 41% of that


def test_without_a_terminal_there_is_a_plain_line_now_and_then_and_one_at_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with display.Display(3, 0, IDEAL) as shown:
        for step in (1, 2, 3):
            shown.show({**ROW, "step": step}, 3.9)
        shown.say("held-out [loss] 3.9")
    out, err = capfd.readouterr()
    assert out == ""
    numbers = "loss 4.000 · ema 3.900 · lr 1.0e-04 · 512 tok/s · mfu 41% · 2.1 GB"
    assert err == f"step 3/3 · {numbers} · 0:00:00 · 0:00:00 left\nheld-out [loss] 3.9\n"


def test_lines_come_every_few_seconds(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    with display.Display(9, 0, IDEAL) as shown:
        for clock[0], step in ((2.0, 1), (4.0, 2), (6.0, 3), (8.0, 4), (12.0, 5)):
            shown.show({**ROW, "step": step}, 4.0)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(" ")[1] for line in lines] == ["3/9", "5/9"]
    assert lines[0].endswith("0:00:06 · 0:00:12 left"), "two seconds a step since the first"
    assert lines[1].endswith("0:00:12 · 0:00:10 left")


@pytest.mark.parametrize("name", ["dumb", ""])
def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TERM", name or "xterm")
    if name:
        monkeypatch.setenv("FORCE_COLOR", "1")
    with display.Display(1, 0, IDEAL) as shown:
        shown.show(ROW, 4.0)
    err = capfd.readouterr().err
    assert "step 1/1 · loss 4.000" in err
    assert "\r" not in err


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (50, "loss 4.000 · –:––:–– left"),
        (60, "loss 4.000 · ema 3.900 · –:––:–– left"),
        (80, "loss 4.000 · ema 3.900 · 512 tok/s · mfu 41% · –:––:–– left"),
        (100, "loss 4.000 · ema 3.900 · lr 1.0e-04 · 512 tok/s · mfu 41% · 2.1 GB · –:––:–– left"),
        (120, "loss 4.000 · ema 3.900 · lr 1.0e-04 · 512 tok/s · mfu 41% · 2.1 GB · 0:00:00 · –:––:–– left"),
    ],
)
def test_a_narrow_terminal_shows_what_matters_most_and_that_whole(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, shown: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with display.Display(12_000, 7_000, IDEAL) as bar:
        bar.show({**ROW, "step": 7_001}, 3.9)
    line = Text.from_ansi(capfd.readouterr().err).plain.strip().splitlines()[-1]
    assert "7001/12000 " in line
    assert line.strip().endswith(shown)
    assert len(line) <= columns


def test_at_a_terminal_there_is_a_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with display.Display(4, 0, IDEAL) as shown:
        shown.show(ROW, 4.0)
        shown.say("a line between")
    err = capfd.readouterr().err
    assert "1/4" in err
    assert "loss 4.000" in err
    assert "a line between" in err
    assert "━" in err


@pytest.mark.parametrize("terminal", [True, False])
def test_a_sample_stands_under_its_title_and_is_indented(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    with display.Display(4, 0, IDEAL) as shown:
        shown.sample("step 3: a sample", "The bell [red]", " rang over the moor and\nthe tide came in")
    text = Text.from_ansi(capfd.readouterr().err).plain
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and "step 0" not in line and "0/4" not in line]
    if terminal:
        assert lines == ["step 3: a sample", "  The bell [red] rang over the moor and", "  the tide came in"]
    else:
        assert text == "step 3: a sample\n  The bell [red] rang over the moor and\n  the tide came in\n"
