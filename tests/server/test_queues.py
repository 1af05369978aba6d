"""Bounded queues: what is refused, what is told, and what is measured."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest

from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.queues import Queue
from tests.server.conftest import Running, Start, wait_until


async def test_a_full_queue_refuses_and_a_free_one_takes_again() -> None:
    queue, go = Queue("tests", 1, 3), threading.Event()
    calls = [asyncio.create_task(queue.run(go.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    assert queue.load == 3
    with pytest.raises(RequestError, match="3 requests of this kind wait already") as raised:
        await queue.run(go.wait)
    assert raised.value.status == 429
    assert 1 <= int(raised.value.headers["Retry-After"]) <= 60
    go.set()
    assert await asyncio.gather(*calls) == [True] * 3
    await asyncio.sleep(0.01)
    assert queue.load == 0
    assert await queue.run(lambda: 5) == 5
    queue.close()
    with pytest.raises(RequestError, match="is stopping") as raised:
        await queue.run(go.wait)
    assert raised.value.status == 503


async def test_the_wait_that_is_told_grows_with_the_work() -> None:
    queue = Queue("tests", 1, 1)
    for _ in range(3):
        await queue.run(lambda: time.sleep(0.02))
        await asyncio.sleep(0.01)
    queue._seconds = 100.0
    go = threading.Event()
    call = asyncio.create_task(queue.run(go.wait))
    await asyncio.sleep(0)
    with pytest.raises(RequestError) as raised:
        await queue.run(go.wait)
    assert raised.value.headers["Retry-After"] == "60"
    go.set()
    await call
    queue.close()


async def test_an_error_of_the_work_reaches_its_caller_and_frees_the_place() -> None:
    queue = Queue("tests", 1, 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await queue.run(lambda: 1 / 0)
        await asyncio.sleep(0.01)
    assert queue.load == 0
    queue.close()


def test_a_caller_is_told_to_come_back_and_health_answers_meanwhile(start: Start, monkeypatch: Any) -> None:
    server = start(max_waiting=4)
    began, go = threading.Event(), threading.Event()
    store_search = server.store.search_batch

    def slow(*arguments: Any, **options: Any) -> Any:
        began.set()
        assert go.wait(30)
        return store_search(*arguments, **options)

    monkeypatch.setattr(server.store, "search_batch", slow)
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{server.url}/v1/search", json={"query": "tide"}, trust_env=False, timeout=60))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert began.wait(30)
    wait_until(lambda: len(answers) == 2)
    assert [(one.status_code, int(one.headers["retry-after"]) >= 1) for one in answers] == [(429, True)] * 2
    assert answers[0].json()["error"]["type"] == "rate_limit_error"
    assert server.client.get("/healthz").status_code == 200
    assert 'colpali_queue_load{queue="questions"} 4.0' in server.client.get("/metrics").text
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(one.status_code for one in answers) == [200] * 4 + [429] * 2
    text = server.client.get("/metrics").text
    assert 'colpali_requests_total{method="POST",route="/v1/search",status="429"} 2.0' in text
    # The first question ran alone, and the three that waited for it ran together.
    assert 'colpali_questions_together_bucket{le="1.0"} 1.0' in text
    assert "colpali_questions_together_count 2.0" in text
    assert "colpali_questions_together_sum 4.0" in text


def test_the_metrics_do_not_grow_with_what_callers_send(served: Running) -> None:
    for number in range(20):
        served.client.get(f"/no-such-address/{number}")
        served.client.get(f"/v1/pages/{number}")
        served.client.request("PROPFIND", "/healthz")
    lines = [
        line for line in served.client.get("/metrics").text.splitlines() if line.startswith("colpali_requests_total")
    ]
    assert not any("PROPFIND" in line or "/7" in line for line in lines)
    assert any('route="/v1/pages/{id:path}"' in line for line in lines)
    assert any('method="other",route="other"' in line for line in lines)
