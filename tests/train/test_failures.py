import numpy as np
import pytest

from lovecraft.errors import TrainingFailed
from lovecraft.train.failures import Diverged, refuse_not_finite, refuse_nothing_to_learn
from tests.train.bench import Bench, packed


@pytest.mark.parametrize(("size", "named"), [(1, "(document a.txt)"), (100, "(documents a.txt, b.txt)")])
def test_every_document_of_a_bad_step_is_named(bench: Bench, size: int, named: str) -> None:
    blocks, numbers = packed(bench.built(bench.config()).splits["train"], size), [np.array([0])]
    with pytest.raises(TrainingFailed) as nothing:
        refuse_nothing_to_learn(0, 3, blocks, numbers)
    with pytest.raises(Diverged) as infinite:
        refuse_not_finite(float("nan"), 1.0, 3, blocks, numbers)
    assert named in nothing.value.message
    assert named in infinite.value.message
