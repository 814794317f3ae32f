"""A stand-in for the engine's batch: it says what it was told to say."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial

from lovecraft.engine.request import Event, Finish, Read, Request

Steps = Generator[Event | None, None, Finish]
"""What happens to one request, pass by pass; None where nothing does."""


class Scripts:
    """Moves every request by one event a step, as its script says."""

    usage = 0.0

    def __init__(self, generate: Callable[[Request], Steps], context: int = 64, slots: int = 1) -> None:
        self.context = context
        self.slots = slots
        self._generate = generate
        self._running: list[Steps] = []

    def add(self, request: Request) -> Steps:
        self._running.append(self._generate(request))
        return self._running[-1]

    def drop(self, one: Steps) -> None:
        if one in self._running:
            self._running.remove(one)
            one.close()

    def work(self) -> Iterator[tuple[list[Steps], Callable[[], list[tuple[Steps, Event]]]]]:
        for one in list(self._running):
            if one in self._running:
                yield [one], partial(_next, one)


def _next(one: Steps) -> list[tuple[Steps, Event]]:
    try:
        event = next(one)
    except StopIteration as end:
        return [(one, end.value)]
    return [] if event is None else [(one, event)]


def scripted(tokens: Sequence[int], *, delay: float = 0.0) -> Callable[[Request], Steps]:
    """Return a script that continues every prompt with `tokens`, over and over.

    It ends as the real one does, and takes `delay` seconds a token.
    """

    def generate(request: Request) -> Steps:
        yield Read(cached=0)
        for step in range(request.max_tokens):
            time.sleep(delay)
            token = tokens[step % len(tokens)]
            yield token
            if token in request.stop_ids:
                return Finish("stop")
        return Finish("length")

    return generate
