from hypothesis import given
from hypothesis import strategies as st

from lovecraft.engine.stop import StopMatcher

ab = st.text("ab", max_size=12)
stops = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def push_all(matcher: StopMatcher, pieces: list[str]) -> str:
    shown = ""
    for piece in pieces:
        shown += matcher.push(piece)
    return shown + matcher.flush()


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Say what an offline reader would show: up to the stop that is complete first, the longest of equals."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(st.lists(ab, max_size=8), stops)
def test_result_does_not_depend_on_how_the_text_was_cut(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown = push_all(matcher, pieces)
    assert (shown, matcher.stopped) == expected("".join(pieces), stops)


@given(st.lists(ab, max_size=8), stops)
def test_exactly_what_could_begin_a_stop_is_held_back(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    shown, text = "", ""
    for piece in pieces:
        shown, text = shown + matcher.push(piece), text + piece
        if matcher.stopped:
            return
        held = text.removeprefix(shown)
        ends = [text[i:] for i in range(len(text)) if any(stop.startswith(text[i:]) for stop in stops)]
        assert held == max(ends, key=len, default="")


def test_unrelated_text_is_not_held() -> None:
    assert StopMatcher(["\n\nTHE END"]).push("Once") == "Once"


def test_false_beginning_is_released() -> None:
    matcher = StopMatcher(["###"])
    assert [matcher.push(piece) for piece in ("a#", "#", "b")] == ["a", "", "##b"]


def test_nothing_comes_after_a_stop() -> None:
    matcher = StopMatcher(["."])
    assert [matcher.push(piece) for piece in ("One. Two", " three")] == ["One", ""]
    assert matcher.flush() == ""
