"""The house's rules: arrows point one way, nothing heavy is imported, the public surface is what it says."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import colpali_integrations

PACKAGE = Path(colpali_integrations.__file__).parent
LAYERS = {
    **{
        "errors.py": 0,
        "_accents.py": 0,
        "_public.py": 0,
        "_forks.py": 0,
        "_logs.py": 0,
        "_text.py": 0,
        "_failures.py": 1,
        "_options.py": 1,
        "_paths.py": 1,
        "pdfium": 1,
        "office": 1.5,
        "pages": 2,
        "runtime": 2,
        "scoring": 3,
        "explain": 4,
    },
    **{"models": 5, "stores": 6, "agents": 7, "evaluation": 7},
    **{"langchain": 8, "llama_index": 8, "ray": 8, "server": 8, "cli": 9},
}
FORBIDDEN = {"torch", "torchvision", "transformers", "colpali_engine", "sentence_transformers", "tensorflow", "jax"}


def imports(path: Path) -> Iterator[str]:
    """Full names that a file imports, wherever in it the import stands."""
    package = ["colpali_integrations", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_in_one_direction(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0]
    if layer not in LAYERS:
        return
    for name in imports(path):
        parts = name.split(".")
        assert parts[0] not in FORBIDDEN, f"{path.name} imports {name}"
        if parts[0] != "colpali_integrations" or len(parts) < 2 or parts[1] not in LAYERS:
            continue
        inside = parts[1] == layer
        assert inside or LAYERS[parts[1]] < LAYERS[layer], f"{layer}/{path.name} imports {name}"


@pytest.mark.parametrize(
    "layer",
    ["pdfium", "office", "pages", "runtime", "scoring", "explain", "models", "stores", "evaluation", "agents"],
)
def test_the_shared_packages_import_no_framework(layer: str) -> None:
    frameworks = ("langchain", "llama_index", "ray", "typer", "rich", "starlette", "uvicorn")
    for path in (PACKAGE / layer).rglob("*.py"):
        for name in imports(path):
            assert not name.startswith(frameworks), f"{path.name} imports {name}"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_import_is_light() -> None:
    loaded = loaded_after("import colpali_integrations")
    assert not loaded & FORBIDDEN
    heavy = {"numpy", "PIL", "onnxruntime", "onnx", "tokenizers", "huggingface_hub", "scipy", "pypdfium2", "tqdm"}
    heavy |= {"langchain_core", "llama_index", "ray", "rich", "starlette", "uvicorn"}
    assert not loaded & {*heavy, "typer"}


def test_pages_need_no_onnxruntime() -> None:
    assert not loaded_after("import colpali_integrations.pages") & {"onnxruntime", "onnx", "tokenizers"}


def test_the_process_that_reads_pdfs_starts_quickly() -> None:
    assert not loaded_after("import colpali_integrations.pdfium.worker") & {"numpy", "PIL", "onnxruntime"}


def test_encoding_loads_no_framework_and_no_torch() -> None:
    loaded = loaded_after(
        "from colpali_integrations import ColPali\n"
        "from PIL import Image\n"
        "model = ColPali.from_pretrained()\n"
        "list(model.embed_queries('harbour')), list(model.embed_images(Image.new('RGB', (64, 64))))"
    )
    assert not loaded & (FORBIDDEN | {"langchain_core", "llama_index"})


@pytest.mark.parametrize("adapter", ["langchain", "llama_index", "ray"])
def test_an_adapter_loads_neither_torch_nor_the_others(adapter: str) -> None:
    loaded = loaded_after(f"import colpali_integrations.{adapter}")
    assert not loaded & FORBIDDEN
    others = {"langchain_core", "llama_index", "ray"} - {"langchain_core" if adapter == "langchain" else adapter}
    assert not loaded & others


PUBLIC = [
    "",
    ".errors",
    ".evaluation",
    ".explain",
    ".langchain",
    ".llama_index",
    ".models",
    ".pages",
    ".ray",
    ".scoring",
    ".stores",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_sorted_and_exist_and_are_documented(name: str) -> None:
    module = importlib.import_module(f"colpali_integrations{name}")
    assert list(module.__all__) == sorted(module.__all__)
    for public in module.__all__:
        assert getattr(module, public).__doc__, f"{public} has no docstring"


@pytest.mark.parametrize("room", ["errors", "evaluation", "explain", "models", "pages", "scoring"])
def test_public_names_report_the_package_that_they_are_imported_from(room: str) -> None:
    module = importlib.import_module(f"colpali_integrations.{room}")
    for name in module.__all__:
        assert getattr(module, name).__module__ == module.__name__
        assert pickle.loads(pickle.dumps(getattr(module, name))) is getattr(module, name)


def test_the_first_names_are_loaded_at_first_use() -> None:
    assert set(colpali_integrations.__all__) <= set(dir(colpali_integrations))
    for name in colpali_integrations.__all__:
        assert getattr(colpali_integrations, name).__name__ == name
    with pytest.raises(AttributeError, match="'colpali_integrations' has no attribute 'mean_pool'"):
        colpali_integrations.mean_pool  # noqa: B018
    with pytest.raises(ImportError):
        exec("from colpali_integrations import mean_pool")


def test_the_error_tree_in_the_docstring_is_the_error_tree() -> None:
    from colpali_integrations import errors

    lines = [line for line in (errors.__doc__ or "").splitlines() if "Error" in line and line.startswith("    ")]
    drawn = [line.replace("│", " ").replace("├──", "   ").replace("└──", "   ") for line in lines]
    stack: list[tuple[int, str]] = []
    seen = set()
    for line in drawn:
        depth, name = len(line) - len(line.lstrip()), line.split()[0]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        seen.add(name)
        if stack:
            assert issubclass(getattr(errors, name), getattr(errors, stack[-1][1])), name
        stack.append((depth, name))
    assert seen == set(errors.__all__)
