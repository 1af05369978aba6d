"""The arithmetic of waiting agrees with known results."""

from __future__ import annotations

from statistics import mean

import pytest

from benchmarks.queueing import Service, expected, random_arrivals


@pytest.mark.parametrize("load", [0.3, 0.5, 0.8])
def test_one_by_one_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    seconds = random_arrivals(Service(0.5, 1.5), load / 2, most=1)
    assert mean(seconds) == pytest.approx(2 + 2 * load / (2 * (1 - load)), rel=0.05)


def test_a_batch_of_any_size_is_a_bus_that_leaves_when_it_is_back() -> None:
    """With no time per question, a question at a high rate waits for the end of the run and then has one of its own."""
    times = random_arrivals(Service(1.0, 0.0), 200.0, most=10**6)
    assert mean(times) == pytest.approx(1.5, abs=0.01)
    assert (times[0], times[-1]) == pytest.approx((1, 2), abs=0.01)


def test_a_service_has_the_rates_that_it_comes_from() -> None:
    service = Service.of(2.4, 0.9, 32)
    assert (service.lone, service.rate) == pytest.approx((2.4, 0.9))


def test_the_better_questions_are_answered_together_the_longer_they_wait_at_half_of_the_rate() -> None:
    waits = [expected(one, one.rate) for one in (Service.of(1.0, gain, 32) for gain in (1.1, 1.5, 2.0, 3.0))]
    assert waits == sorted(waits)
    assert waits[0] < 1.3
    assert waits[-1] > 2.2
