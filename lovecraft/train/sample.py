"""What a model in training writes: a short continuation, the same for the same weights."""

from collections.abc import Callable

from lovecraft.engine.batch import Batch, Slot, events
from lovecraft.engine.request import Request, SamplingParams
from lovecraft.engine.text import TextStream, prompt_ids
from lovecraft.models.kv_cache import KVCache
from lovecraft.models.llama import Llama
from lovecraft.tokenizer import Tokenizer

SAMPLING = SamplingParams(temperature=0.8, top_p=0.95, seed=0)


def continuation(
    model: Llama, tokenizer: Tokenizer, prompt: str, tokens: int, heed: Callable[[], None] = lambda: None
) -> str:
    """Return a continuation of `prompt` by at most `tokens` tokens. It draws from its own RNG, not from training's.

    Raises what `heed` raises, which is called before each token.
    """
    ids = prompt_ids(tokenizer, prompt)
    request = Request(tuple(ids), tokens, SAMPLING, frozenset(tokenizer.stop_ids))
    like = model.head
    slot = Slot(KVCache(model.architecture, 1, len(ids) + tokens, like.dtype, like.device, model.windows()))
    stream, text = TextStream(tokenizer, ids), ""
    heed()
    for event in events(Batch(model, [slot], tokenizer.vocab_size), request):
        text += stream.take(event)
        heed()
    return text
