"""Cores that a container permits, and freed memory that is returned to the operating system."""

from __future__ import annotations

import os
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


CGROUP = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
CPU = "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"


def quota_files(folder: str, microseconds: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{microseconds}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("mounts", "groups", "files", "cores"),
    [
        pytest.param(CGROUP, "0::/\n", {"": "200000 100000"}, 2, id="a container of version 2"),
        pytest.param(CGROUP, "0::/\n", {"": "max 100000"}, 64, id="no limit"),
        pytest.param(CGROUP, "0::/\n", {}, 64, id="the topmost group has no file"),
        pytest.param(CGROUP, "0::/\n", {"": "150000 100000"}, 2, id="a core and a half"),
        pytest.param(CGROUP, "0::/\n", {"": "10000 100000"}, 1, id="a tenth"),
        pytest.param(CGROUP, "0::/\n", {"": "9999900000 100000"}, 64, id="more than there are"),
        pytest.param(CGROUP, "0::/a.slice/b\n", {"a.slice/b": "800000 100000"}, 8, id="a service"),
        pytest.param(
            CGROUP, "0::/a.slice/b\n", {"a.slice/b": "max 100000", "a.slice": "300000 100000"}, 3, id="the group above"
        ),
        pytest.param(CGROUP, "0::/../other\n", {"": "400000 100000"}, 4, id="a group outside of the mount"),
        pytest.param(CGROUP, "0::/\n", {"": "damaged"}, 64, id="a file of another form"),
        pytest.param(CGROUP, "0::/\n", {"": f"{10**400} 100000"}, 64, id="a quota of 400 digits"),
        pytest.param(CGROUP, "0::/\n", {"": "100000 0"}, 64, id="a period of 0"),
        pytest.param(f"odd\n{CGROUP}", "odd\n0::/\n", {"": "200000 100000"}, 2, id="odd lines beside the right ones"),
        pytest.param(
            CGROUP.replace("/cgroup ", "/c\\040group "), "0::/\n", {"../c group": "200000 100000"}, 2, id="a space"
        ),
        pytest.param("damaged\n", "0::/\n", {"": "100000 100000"}, 64, id="mounts of another form"),
        pytest.param(CGROUP, "damaged\n", {"": "100000 100000"}, 64, id="groups of another form"),
    ],
)
def test_cores_of_control_groups_of_version_2(
    mounts: str, groups: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {f"{folder}/cpu.max": text for folder, text in files.items()}
    check_cores(
        mounts, groups, {f"sys/fs/cgroup/{path}": text for path, text in limits.items()}, cores, tmp_path, monkeypatch
    )


@pytest.mark.parametrize(
    ("top", "group", "files", "cores"),
    [
        pytest.param("/", "/", quota_files(".", 200_000), 2, id="a container with a view of its own"),
        pytest.param("/", "/", quota_files(".", -1), 64, id="no limit"),
        pytest.param(
            "/docker/1f", "/docker/1f", quota_files(".", 200_000), 2, id="a container with the machine's view"
        ),
        pytest.param("/docker/1f", "/docker/1f/in", quota_files("in", 300_000), 3, id="a group in it"),
        pytest.param("/docker/1", "/docker/1f", quota_files(".", 500_000), 5, id="a group outside of the mount"),
        pytest.param("/", "/a/b", quota_files("a", 150_000) | quota_files("a/b", 400_000), 2, id="the group above"),
        pytest.param("/", "/", {}, 64, id="no file"),
    ],
)
def test_cores_of_control_groups_of_version_1(
    top: str, group: str, files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {f"sys/fs/cgroup/cpu,cpuacct/{path}": text for path, text in files.items()}
    wrong = {f"sys/fs/cgroup/memory/{path}": "100000" for path in ("cpu.cfs_quota_us", "cpu.cfs_period_us")}
    groups = f"4:cpu,cpuacct:{group}\n3:memory:/\n1:name=systemd:/\n0::/\n"
    check_cores(MEMORY + CPU.format(top=top), groups, paths | wrong, cores, tmp_path, monkeypatch)


def check_cores(
    mounts: str, groups: str, files: dict[str, str], cores: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, text in {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    machine._cpu_quota.cache_clear()  # pytest may give the folder of an earlier test again
    assert machine.available_cores(root) == cores


def test_cores_of_a_process_that_is_bound_to_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert machine.available_cores(tmp_path) == 3


def test_cores_of_a_system_without_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.available_cores(tmp_path) == 6
