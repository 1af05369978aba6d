"""The policy of benchmarks/agents.py, on two pages."""

from __future__ import annotations

from pathlib import Path

from benchmarks.agents import agent, ask
from colpali_integrations import ColPali
from colpali_integrations.stores import index_documents
from tests.conftest import few_pages


def test_the_policy_reads_the_cited_page(tmp_path: Path, coltiny: ColPali) -> None:
    few_pages(tmp_path / "report.pdf", [3, 7])
    index_documents([tmp_path / "report.pdf"], model=coltiny, store=tmp_path / "index")
    with agent(tmp_path / "index", tmp_path) as one:
        outcome = ask(one, "diverging palettes", {("report.pdf", 1)})
        assert (outcome.calls, len(outcome.pictures)) == (3, 1)
        assert 10_000 < outcome.size <= 400_000
        assert ask(one, "seats in a parliament", {("report.pdf", 9)}).calls is None
