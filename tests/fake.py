"""A stand-in for the engine: it says what it was told to say."""

import time
from collections.abc import Callable, Sequence

from lovecraft.engine.request import Finish, Read, Request, Steps


def scripted(tokens: Sequence[int], *, delay: float = 0.0) -> Callable[[Request], Steps]:
    """Return a `generate` for `Engine` that continues every prompt with `tokens`, over and over.

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
