"""Stop strings in text that arrives in pieces."""

from collections.abc import Sequence


class StopMatcher:
    """Passes text on up to the first stop string, never a part of one, and holds back as little as possible.

    The first stop string to be complete counts; of several that end at the same character the longest. So the result
    does not depend on how the text was cut into pieces. What is held back is the longest end of the text that a stop
    string begins with.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string would stop at once"
        self._stops = tuple(stops)
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Take a piece of text; return what may be shown. Once `stopped`, nothing more comes."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0]
        self.stopped = bool(found)
        end = min(found)[1] if found else self._certain(text)
        self._held = "" if found else text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return what was held back; nothing more will follow that could complete a stop string."""
        held, self._held = self._held, ""
        return held

    def _certain(self, text: str) -> int:
        """Return how many characters no stop string can reach back to."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self._stops):
                return start
        return len(text)
