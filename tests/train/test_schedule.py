import math

import pytest

from lovecraft import WSD, Constant, Cosine, Linear, ScheduleConfig
from lovecraft.train.schedule import in_steps, multiplier


def curve(schedule: ScheduleConfig, total: int) -> list[float]:
    return [multiplier(schedule, step, total) for step in range(total)]


def test_constant_stays_at_the_peak() -> None:
    assert curve(Constant(), 5) == [1.0] * 5


def test_linear_falls_in_a_line_towards_its_end() -> None:
    assert curve(Linear(min_lr=0.0), 4) == [1.0, 0.75, 0.5, 0.25]
    assert multiplier(Linear(min_lr=0.2), 4, 4) == pytest.approx(0.2)


def test_cosine_is_half_a_cosine() -> None:
    assert curve(Cosine(), 10) == pytest.approx([0.5 * (1 + math.cos(math.pi * t / 10)) for t in range(10)])
    assert multiplier(Cosine(min_lr=0.1), 10, 10) == pytest.approx(0.1)


def test_wsd_falls_only_over_its_last_steps() -> None:
    assert curve(WSD(decay=0.4), 10) == pytest.approx([1.0] * 7 + [0.75, 0.5, 0.25])


@pytest.mark.parametrize("schedule", [Constant, Linear, Cosine, WSD])
def test_warm_up_rises_in_a_line_from_a_rate_above_zero_to_the_peak(schedule: type[ScheduleConfig]) -> None:
    rates = curve(schedule(warmup=4), 20)
    assert rates[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert max(rates) == 1.0


def test_a_warm_up_below_one_is_a_fraction_of_all_steps() -> None:
    assert curve(Cosine(warmup=0.25), 16) == curve(Cosine(warmup=4), 16)
    assert [in_steps(length, 100) for length in (0, 0.06, 1, 10)] == [0, 6, 1, 10]
