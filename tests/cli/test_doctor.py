"""Doctor reports the true state of the machine, also in a form for scripts."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import onnxruntime as ort
import pytest

from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.cli.doctor import EXTRAS, Check, Status, examine, provider_error, recommendation
from colpali_integrations.models import ModelDescription, register_model
from colpali_integrations.models.builder.speeds import LayerSpeed
from colpali_integrations.models.hub import cache_state
from colpali_integrations.models.registry import find_model
from tests.models.test_hub import NAME, make_cache

ROOT = Path(__file__).parents[2]


def of(checks: Iterable[Check], group: str, name: str = "") -> list[Check]:
    return [check for check in checks if check.group == group and name in ("", check.name)]


def test_a_healthy_machine_as_json_and_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json", "--model", "coltiny"]) == ExitCode.OK
    captured = capsys.readouterr()
    checks = [json.loads(line) for line in captured.out.splitlines()]
    assert {tuple(check) for check in checks} == {("group", "name", "status", "detail", "fix")}
    assert list(dict.fromkeys(check["group"] for check in checks)) == [
        *("environment", "extras", "providers", "cache", "models")
    ]
    assert {check["status"] for check in checks} <= {"ok", "note"}
    [_, embeds] = [check for check in checks if check["group"] == "models"]
    assert re.fullmatch(
        r"embeds a page \(\d+ vectors\) and a query \(\d+\) in [\d.]+ s, loading included", embeds["detail"]
    )
    assert run(["doctor", "--no-embed"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "Providers" in shown
    assert "CPUExecutionProvider" in shown
    assert "hf download Qdrant/colmodernvbert" in shown
    assert shown.endswith("No problems.\n")


def test_a_precision_is_recommended_for_this_processor() -> None:
    [instructions] = of(examine(models=[], embed=False), "environment", "products of bytes")
    [precision] = of(examine(models=[], embed=False), "environment", "precision")
    assert instructions.status is precision.status is Status.ok
    assert re.search(r"times as fast as in float32: int8 [\d.]+, int8-dynamic [\d.]+$", precision.detail)


@pytest.mark.parametrize(
    ("instructions", "ratios", "errors", "advice"),
    [
        (("avx512_vnni",), (2.0, 4.0), (0, 0), "int8 is recommended; int8-dynamic is the fastest"),
        (("amx_int8",), (1.1, 9.0), (0, 0), "int8 saves memory and hardly any time; int8-dynamic is the fastest"),
        (("asimddp",), (1.5, 1.2), (0, 0), "int8 is recommended"),
        ((), (2.0, 2.0), (0, 0), "int8 saves memory and hardly any time"),
        ((), (2.0, 2.0), (0, 0.5), "overflow on this processor in int8-dynamic, which must not be used"),
        (None, (2.0, 4.0), (0, 0), "int8 is recommended; int8-dynamic is the fastest"),
        (None, (1.0, 1.0), (0, 0), "int8 saves memory and hardly any time"),
    ],
)
def test_the_recommendation(
    instructions: tuple[str, ...] | None, ratios: tuple[float, float], errors: tuple[float, float], advice: str
) -> None:
    quantized = {name: LayerSpeed(*one) for name, *one in zip(("int8", "int8-dynamic"), ratios, errors, strict=True)}
    found = recommendation(instructions, {"float32": LayerSpeed(1.0, 0.0), **quantized})
    assert found.startswith("of a checkpoint: ")
    assert advice in found
    assert ("int8-dynamic" in advice) == ("int8-dynamic" in found)


def test_an_unknown_model_is_an_error_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--model", "nonsense"]) == ExitCode.ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: no model is registered as 'nonsense'")


def test_the_extras_are_those_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    declared = {}
    for name, packages in re.findall(r"^([\w-]+) = \[(.*)\]", section, flags=re.MULTILINE):
        names = [re.split(r"[=<>\[]", package)[0] for package in re.findall(r'"([^"]+)"', packages)]
        declared[name] = {package for package in names if package != "colpali-integrations"}
    assert declared.pop("all") == set()
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == declared


def test_providers_are_tried_and_do_not_fall_back() -> None:
    assert provider_error("CPUExecutionProvider") is None
    if "AzureExecutionProvider" in ort.get_available_providers():
        assert provider_error("AzureExecutionProvider"), "every build lists it, and it computes nothing itself"
    with pytest.warns(UserWarning, match="NoSuchProvider"):
        assert provider_error("NoSuchProvider")


def test_a_damaged_cache_is_a_problem_with_a_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = make_cache(tmp_path, shared=False)
    [files, embeds] = of(examine(models=[NAME]), "models")
    assert (files.status, embeds.status) == (Status.ok, Status.ok)
    weights = (snapshot / "model.onnx_data").resolve()
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(["doctor", "--json", "--model", NAME]) == ExitCode.INCOMPLETE
    checks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [bad] = [check for check in checks if check["status"] == "problem"]
    assert "cut off: model.onnx_data" in bad["detail"]
    assert str(snapshot / "model.onnx_data") in bad["fix"]
    weights.unlink()
    assert run(["doctor", "--model", NAME]) == ExitCode.INCOMPLETE
    shown = capsys.readouterr().out
    assert "lacks model.onnx_data" in shown
    assert f"hf download {NAME}" in shown
    assert "1 problem; the fix is below each." in shown


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the free memory is unknown")
@pytest.mark.usefixtures("own_registry")
def test_a_model_that_does_not_fit_into_memory_is_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    make_cache(tmp_path, shared=False)
    huge: ModelDescription = replace(find_model(NAME), size_in_bytes=10**18)
    register_model(huge, replace=True)
    assert cache_state(huge).complete
    check = of(examine(), "models", NAME)[-1]
    assert check.status is Status.note
    assert "not tried: it needs about" in check.detail
    assert check.fix == f"colpali-integrations doctor --model {NAME}"


def test_two_builds_of_onnxruntime_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name in ("onnxruntime", "onnxruntime-gpu"):
            return "1.32.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = list(examine(models=[]))
    [runtime] = of(checks, "environment", "onnxruntime")
    assert runtime.status is Status.problem
    assert runtime.fix == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    assert [check.status for check in of(checks, "extras")] == [Status.note] * len(EXTRAS)
    [server] = of(checks, "extras", "qdrant")
    assert server.fix == 'pip install "colpali-integrations[qdrant]"'


def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5e8}))
    [cache] = of(examine(models=[]), "cache")
    assert cache.status is Status.problem
    assert "0.5 GB free" in cache.detail
    assert "HF_HOME" in cache.fix
