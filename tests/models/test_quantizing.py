"""Models with int8 weights: small ones of the real architectures are quantised and compared with the original."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.cli.app import ExitCode, run
from colpali_integrations.errors import ConfigurationError, InputError, ModelLoadError
from colpali_integrations.models.builder.files import DESCRIPTION_FILE
from colpali_integrations.models.builder.quantized import CACHE_VARIABLE
from colpali_integrations.models.exporting import export_model
from colpali_integrations.models.quantizing import Quantized, compare, quantize_model
from tests.models.narrow_products import ARE_WRONG, REASON

FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"
NAMES = ("paligemma", "colmodernvbert")
QUESTIONS = ["how tall is the tower", "harbour", "violin tuning"]


def pages() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return [np.kron(rng.integers(0, 256, (8, 6, 3)), np.ones((40, 40, 1))).astype(np.uint8) for _ in range(2)]


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Quantized]:
    source = FIXTURES / request.param
    return source, quantize_model(source, tmp_path_factory.mktemp("quantised") / request.param)


@pytest.mark.slow
def test_a_quantised_model_is_a_model_of_its_own_near_the_first(made: tuple[Path, Quantized]) -> None:
    source, quantized = made
    with ColPali.from_pretrained(source) as original, quantized.load() as other:
        assert other.splits_graph
        assert not other.description.fingerprint.same_space(original.description.fingerprint)
        agreement = compare(original, other, pages, QUESTIONS)
        assert len(agreement.page_cosines) == sum(len(vectors) for vectors in original.embed_images(pages()))
    # Near, and not the same numbers. Nothing is promised of the worst vector: that is what the report is for.
    assert 0.99 < agreement.page_cosines.mean() < 0.99999
    assert 0.99 < agreement.query_cosines.mean() < 0.99999
    assert (agreement.pages, agreement.questions, agreement.k) == (2, 3, 2)
    assert agreement.overlap == 1.0


def test_weights_are_of_seven_bits_for_processors_that_saturate(made: tuple[Path, Quantized]) -> None:
    _, quantized = made
    [file] = quantized.folder.glob("*.onnx")
    model = onnx.load(file)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == quantized.products > 10
    for node in products:
        values = weights[node.input[1]]
        assert values.dtype == np.int8
        assert np.abs(values.astype(int)).max() <= 64
        assert 2 * 255 * np.abs(values.astype(int)).max() <= np.iinfo(np.int16).max
    assert quantized.bytes_after == sum(file.stat().st_size for file in quantized.folder.glob("*.onnx*"))


def test_one_model_agrees_with_itself() -> None:
    with ColPali.from_pretrained(FIXTURES / "paligemma") as model:
        agreement = compare(model, model, pages, QUESTIONS)
        np.testing.assert_allclose(agreement.page_cosines, 1, atol=1e-6)
        assert (agreement.same_first, agreement.overlap) == (1.0, 1.0)
        assert agreement.rank_correlation == pytest.approx(1)
        alone = compare(model, model, lambda: pages()[:1], [])
        assert np.isnan([alone.same_first, alone.overlap, alone.rank_correlation]).all()
        assert len(alone.query_cosines) == 0
        with pytest.raises(InputError, match="at least one page"):
            compare(model, model, list, QUESTIONS)


def test_models_that_are_no_versions_of_one_cannot_be_compared(coltiny: ColPali, paligemma: ColPali) -> None:
    with pytest.raises(InputError, match=r"page 1 has vectors .* cannot be paired"):
        compare(coltiny, paligemma, lambda: pages()[:1], [])


def test_unsuitable_models_are_refused_with_the_reason(made: tuple[Path, Quantized], tmp_path: Path) -> None:
    source, quantized = made
    for name, reason in (
        ("coltiny", "has no matrix product with constant float32 weights"),
        (FIXTURES / "paligemma-fp16", "is a half precision export.*start from a float32 export"),
        (quantized.folder, "is quantised already"),
    ):
        with pytest.raises(ModelLoadError, match=reason):
            quantize_model(name, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="exists already"):
        quantize_model(source, quantized.folder)


def test_a_registered_model_is_loaded_by_its_name_from_an_empty_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "out").mkdir()
    quantized = quantize_model("Qdrant/colpali-v1.3-fp16", tmp_path / "out", local_dir=FIXTURES / "paligemma")
    assert quantized.registered == "Qdrant/colpali-v1.3-fp16"
    assert (quantized.folder / "model.onnx_data").is_file()
    with quantized.load(threads=1) as model:
        assert len(next(model.embed_queries("tower"))) == model.token_count("tower")
    assert caplog.records == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    from PIL import Image

    for number, page in enumerate(pages()):
        Image.fromarray(page).save(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.skipif(ARE_WRONG, reason=REASON)
def test_the_command_reports_on_the_user_s_own_pages(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    source, out = tmp_path / "export", tmp_path / "int8"
    shutil.copytree(FIXTURES / "paligemma", source)
    arguments = ["quantize", str(source), str(out), "--pages", str(document), "--most", "1"]
    assert run([*arguments, "-q", "harbour", "-q", "tower", "--json"]) == ExitCode.OK
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (record["pages"], record["questions"], record["k"]) == (1, 2, 1)
    assert 0.99 < record["page_cosine_mean"] < 1
    assert 0.95 < record["query_cosine_least"] < 1
    assert {"same_first", "overlap", "rank_correlation", "bytes_before", "bytes_after"} <= record.keys()
    assert run(arguments) == ExitCode.ERROR
    assert "exists already" in capsys.readouterr().err
    shutil.rmtree(out)
    assert run([*arguments[:-1], "2", "-q", "harbour"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "2,060 vectors of 2 pages: cosine with the original 0.99" in captured.out
    assert "ranks of 2 pages for 1 questions: the same page first" in captured.out
    assert "matrix products in int8" in captured.err
    shutil.rmtree(out)
    assert run(arguments[:3]) == ExitCode.OK
    assert "Not compared with the original" in capsys.readouterr().err


def test_the_command_refuses_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = FIXTURES / "colmodernvbert", tmp_path / "int8"
    for more, reason in (
        (["-q", "harbour"], "pass some with --pages"),
        (["--pages", str(tmp_path / "none.pdf")], "no such file or folder"),
        (["--pages", str(tmp_path)], "no PDFs, Office files or images"),
    ):
        assert run(["quantize", str(source), str(out), *more]) == ExitCode.ERROR
        assert reason in " ".join(capsys.readouterr().err.split())
        assert not out.exists()


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_a_checkpoint_s_int8_weights_are_compared_in_place(
    precision: str, document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    arguments = ["quantize", str(FIXTURES / "neomme"), "--pages", str(document), "--precision", precision]
    assert run([*arguments, "-q", "harbour", "--json"]) == ExitCode.OK
    record: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (record["precision"], record["pages"], record["questions"]) == (precision, 2, 1)
    assert 0.98 < record["page_cosine_least"] < 1
    assert [path.name.rpartition("-")[0] for path in (tmp_path / "cache").glob("*.safetensors")] == [precision]
    assert run(arguments[:2]) == ExitCode.OK
    assert "precision='int8')" in " ".join(capsys.readouterr().err.split())
    assert run(["quantize", str(FIXTURES / "paligemma")]) == ExitCode.ERROR
    assert "name the folder to write" in capsys.readouterr().err


def test_an_exported_folder_is_not_compared_with_itself(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    export_model(FIXTURES / "neomme", folder, precision="int8")
    refusal = "quantize neomme, or export it again with"
    for out in ([], [str(tmp_path / "out")]):
        assert run(["quantize", str(folder), *out, "--pages", str(document)]) == ExitCode.ERROR
        assert refusal in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ModelLoadError, match=f"exported from neomme with precision='int8'; {refusal}"):
        quantize_model(folder, tmp_path / "out")


def test_int8_weights_are_compared_with_float32_whatever_the_description_names(
    document: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder = shutil.copytree(FIXTURES / "neomme", tmp_path / "described")
    description = {"description": {"family": "neomme", "precision": "int8"}}
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description))
    arguments = ["quantize", str(folder), "--pages", str(document), "--json"]
    assert run(arguments) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["page_cosine_mean"] < 0.99999
    assert run([*arguments, "--precision", "float32"]) == ExitCode.ERROR
    assert "float32 is the precision of the original" in capsys.readouterr().err
