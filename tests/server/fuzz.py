"""Calls the server as its OpenAPI description permits, and as it forbids.

`python -m tests.server.fuzz --cases 10000` runs it for long, against a server of its own with a small store.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import (
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance, negative_data_rejection]
_SECONDS = 20  # of one answer; a longer one is a hang


def fuzz(url: str, cases: int) -> Counter[int]:
    """Call each operation `cases` times, and count the answers by status."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[int] = Counter()
    results: Any = schema.get_all_operations()
    for operation in (result.ok() for result in results):
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            # Any text is an id, and its search for others takes seconds.
            if mode is schemathesis.GenerationMode.POSITIVE or list(operation.body) or list(operation.query):
                _call(operation, mode, max(1, cases // 2), statuses)
    return statuses


def _call(operation: Any, mode: Any, cases: int, statuses: Counter[int]) -> None:
    from hypothesis import given

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def call(case: Any) -> None:
        response = case.call(timeout=_SECONDS)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    try:
        call()
    except Exception as error:
        if type(error).__name__ != "Unsatisfiable":  # nothing can be wrong about an address without arguments
            raise


def main() -> None:
    from colpali_integrations import ColPali
    from colpali_integrations.stores import MultiVectorStore, index_documents
    from tests.conftest import few_pages
    from tests.server.conftest import running, service_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="of all operations together")
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory() as folder, ColPali.from_pretrained() as model:
        few_pages(Path(folder) / "report.pdf", [3, 7])
        path = Path(folder) / "index"
        with MultiVectorStore.open(path, model=model) as store:
            index_documents(Path(folder) / "report.pdf", model=model, store=store)
            with running(service_of(model, store, path, port=0, roots=[Path(folder)])) as server:
                began = time.monotonic()
                statuses = fuzz(server.url, cases // len(schemathesis.openapi.from_url(f"{server.url}/openapi.json")))
    total = sum(statuses.values())
    print(f"{total} calls in {time.monotonic() - began:.0f} s:", dict(sorted(statuses.items())))  # noqa: T201


if __name__ == "__main__":
    main()
