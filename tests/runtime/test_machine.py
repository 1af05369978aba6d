"""Freed memory is returned to the operating system."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from colpali_integrations.runtime import machine

STATUS = Path("/proc/self/status")


@pytest.fixture
def fresh_lookup() -> Iterator[None]:
    machine._malloc_trim.cache_clear()
    yield
    machine._malloc_trim.cache_clear()


def resident() -> int:
    """MiB in memory."""
    return next(int(line.split()[1]) // 1024 for line in STATUS.read_text().splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(machine._malloc_trim() is None, reason="only glibc keeps too much")
def test_holes_in_the_heap_are_returned() -> None:
    # 160 MiB in blocks too small for a mapping of their own, with a live one after each four: the heap cannot shrink.
    blocks = [bytes(60_000) for _ in range(2800)]
    kept = blocks[::4]
    del blocks
    before = resident()
    machine.release_freed_memory()
    assert before - resident() > 80
    assert len(kept) == 700


@pytest.mark.usefixtures("fresh_lookup")
def test_on_other_platforms_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    machine.release_freed_memory()
    assert machine._malloc_trim() is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni amx_int8\n", ("amx_int8", "avx512_vnni")),
        ("Features\t: fp asimd asimddp i8mm\n", ("asimddp", "i8mm")),
        ("flags\t\t: fpu avx2\n", ()),
        ("vendor_id\t: somebody\n", None),
        (None, None),
    ],
)
def test_instructions_for_products_of_bytes(text: str | None, found: tuple[str, ...] | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert machine.byte_instructions(tmp_path / "cpuinfo") == found
