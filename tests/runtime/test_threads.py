"""Asynchronous results: one by one, or all together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from colpali_integrations import ColPali
from colpali_integrations.runtime.threads import in_thread


def test_results_are_iterated_over_or_awaited(coltiny: ColPali) -> None:
    async def both() -> tuple[int, int]:
        one_by_one = [vectors async for vectors in coltiny.aembed_queries(["low tide", "ebb"])]
        together = await coltiny.aembed_queries(["low tide", "ebb"])
        return len(one_by_one), len(together)

    assert asyncio.run(both()) == (2, 2)


def test_work_ends_early() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    async def first() -> int:
        results = in_thread(numbers())
        number = await results.__anext__()
        await results.aclose()
        return number

    assert asyncio.run(first()) == 0
    assert closed == [True]
