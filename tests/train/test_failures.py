import numpy as np
import pytest

from lovecraft.errors import TrainingFailed
from lovecraft.train.failures import Diverged, Spiked, refuse_not_finite, refuse_nothing_to_learn, refuse_spike
from tests.train.bench import Bench, packed


@pytest.mark.parametrize(
    ("size", "named"), [(1, "(block 0 of document a.txt)"), (100, "(block 0 of documents a.txt, b.txt)")]
)
def test_every_document_of_a_bad_step_is_named(bench: Bench, size: int, named: str) -> None:
    blocks, numbers = packed(bench.built(bench.config()).splits["train"], size), [np.array([0])]
    with pytest.raises(TrainingFailed) as nothing:
        refuse_nothing_to_learn(0, 3, blocks, numbers)
    with pytest.raises(Diverged) as infinite:
        refuse_not_finite(float("nan"), 1.0, 3, blocks, numbers)
    assert named in nothing.value.message
    assert named in infinite.value.message


def test_a_spike_names_the_blocks_of_the_step_and_how_high_it_is(bench: Bench) -> None:
    blocks = bench.built(bench.config()).splits["train"]
    numbers = [np.array([2, 0]), np.array([1])]
    refuse_spike(8.0, 4.0, None, 3, blocks, numbers)
    refuse_spike(8.0, 4.0, 2.0, 3, blocks, numbers)
    refuse_spike(8.0, None, 2.0, 1, blocks, numbers)
    with pytest.raises(Spiked) as caught:
        refuse_spike(8.2, 4.0, 2.0, 3, blocks, numbers)
    assert (
        "step 3: the loss is 8.2000, 2.05 times its running mean of 4.0000 (blocks 0, 1, 2 of " in caught.value.message
    )
    assert caught.value.ratio == pytest.approx(2.05)


def test_a_step_of_very_many_blocks_is_named_in_short(bench: Bench) -> None:
    blocks = bench.built(bench.config()).splits["train"]
    with pytest.raises(TrainingFailed, match=r"blocks 0, 0, .*, 0 and 24 more of document a.txt"):
        refuse_nothing_to_learn(0, 3, blocks, [np.zeros(40, int)])
