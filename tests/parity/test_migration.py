"""The blocks of the migration page are run side by side, where the other libraries are installed (`make parity`)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import few_pages

from .conftest import FIXTURES

pytestmark = pytest.mark.filterwarnings("ignore")  # those of large libraries are not ours to mend

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"


def reference(library: str) -> None:
    """Skip a test where the library is not installed."""
    pytest.importorskip("torch", reason="the other libraries need PyTorch (make parity)")
    from . import torchvision_shim  # noqa: F401  (before the library)

    pytest.importorskip(library)


def section(name: str) -> tuple[str, str]:
    """The two blocks of a section: that of another library, and ours."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    theirs, ours = re.findall(r"^```py.*?\n((?s:.*?))^```$", text, flags=re.MULTILINE)[:2]
    return theirs, ours


def run(
    name: str, checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Path
) -> list[dict[str, Any]]:
    """Run our block and then theirs with one checkpoint and the same pages; returns their variables and ours."""
    theirs, ours = section(name)
    few_pages(folder / "report.pdf", [1, 3])
    monkeypatch.chdir(folder)
    here: dict[str, Any] = {"checkpoint": checkpoint, "options": options}
    assert "ColPali.from_pretrained()" in ours
    exec(ours.replace("from_pretrained()", "from_pretrained(checkpoint, **options)"), here)
    there: dict[str, Any] = {"images": here["images"]}
    exec(re.sub(r'"[\w-]+/[\w.-]+"', repr(str(checkpoint)), theirs), there)
    return [there, here]


def differences(there: Any, here: list[np.ndarray]) -> list[float]:
    pairs = [(np.asarray(a.detach(), np.float32), b) for a, b in zip(there, here, strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    return [float(np.abs(a - b).max()) for a, b in pairs]


def test_colpali_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference("colpali_engine")
    adapter = shutil.copytree(FIXTURES / "colqwen2_5", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    base = FIXTURES / "colqwen2_5-base"
    config["base_model_name_or_path"] = str(base)
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    there, here = run("colpali-engine", adapter, tmp_path, monkeypatch, base=base)
    assert max(differences(there["queries"], here["queries"])) < 2e-5
    # torchvision, which resizes there, rounds 0.07% of the pixels by one level; with Pillow `test_qwen2_vl` has 4e-6.
    assert max(differences(there["pages"], here["pages"])) < 0.01
    np.testing.assert_allclose(there["scores"], here["scores"], atol=0.01)


def test_sentence_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference("sentence_transformers")
    there, here = run("sentence-transformers", FIXTURES / "neomme", tmp_path, monkeypatch)
    assert max(differences(there["pages"], here["pages"])) < 1e-3  # of pixels, as above
    there, here = run("sentence-transformers", FIXTURES / "colqwen2", tmp_path, monkeypatch)
    assert max(differences(there["queries"], here["queries"])) < 2e-6
    # transformers counts the tokens of a page 0, 1, 2 ..., as the page says.
    assert max(differences(there["pages"], here["pages"])) > 0.01
