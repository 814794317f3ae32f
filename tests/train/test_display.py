import pytest
from rich.text import Text

from lovecraft.train import display

ROW = {"step": 1, "loss": 4.0, "lr": 1e-4, "tokens_per_second": 512.4, "memory": 2_100_000_000}


def test_without_a_terminal_there_is_a_plain_line_now_and_then_and_one_at_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with display.Display(total=3, step=0) as shown:
        for step in (1, 2, 3):
            shown.show({**ROW, "step": step, "loss": 4.0 if step < 3 else 3.0})
        shown.say("held-out [loss] 3.9")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (
        "step 3/3 · loss 3.000 (ema 3.900) · lr 1.0e-04 · 512 tok/s · 2.1 GB · 0 s left\nheld-out [loss] 3.9\n"
    )


def test_lines_come_every_few_seconds(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    with display.Display(total=9, step=0) as shown:
        shown.show(ROW)
    assert capfd.readouterr().err.startswith("step 1/9")


@pytest.mark.parametrize(
    ("columns", "shown"), [(80, "loss 4.000 (ema 4.000) · 512 tok/s"), (120, "512 tok/s · 2.1 GB")]
)
def test_a_narrow_terminal_shows_step_and_time_left_whole(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, shown: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    with display.Display(total=12_000, step=7_000) as bar:
        bar.show({**ROW, "step": 7_001})
    line = Text.from_ansi(capfd.readouterr().err).plain
    assert "7001/12000 " in line
    assert shown in line
    assert "…" not in line
    assert ("lr 1.0e-04" in line) == (columns == 120)


def test_at_a_terminal_there_is_a_bar(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with display.Display(total=4, step=0) as shown:
        shown.show(ROW)
        shown.say("a line between")
    err = capfd.readouterr().err
    assert "1/4" in err
    assert "loss 4.000" in err
    assert "a line between" in err
    assert "━" in err
