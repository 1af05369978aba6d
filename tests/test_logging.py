"""The package logs as a library should: by module, without handlers, and what it warns of once."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import onnxruntime as ort
import pytest

import colpali_integrations

PACKAGE = Path(colpali_integrations.__file__).parent


def test_loggers_are_named_after_their_modules_and_configure_nothing() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "package_logger":
                [argument] = node.args
                assert isinstance(argument, ast.Name) and argument.id == "__name__", path
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name = node.func.attr
            if path.parent.name != "cli":
                assert name not in ("basicConfig", "addHandler", "setLevel"), path
            # `_logs` makes the loggers of modules, whose entries are safe to print.
            assert name != "getLogger" or path.parent.name == "cli" or path.name == "_logs.py", path
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if name in ("debug", "info", "warning", "error") and owner in ("logger", "_logger"):
                assert isinstance(node.args[0], ast.Constant), f"{path}: arguments are formatted where they are wanted"


def test_the_import_leaves_logging_alone() -> None:
    code = (
        "import logging, colpali_integrations\n"
        "package = logging.getLogger('colpali_integrations')\n"
        "print(package.handlers, logging.getLogger().handlers, package.level)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] [] 0\n"


def test_a_provider_that_fails_to_start_is_logged_once() -> None:
    """As where onnxruntime-gpu is installed and its libraries are not; once per process, so in one of its own."""
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("CUDA is there, and may come up")
    code = (
        "import logging, onnxruntime as ort\n"
        "from colpali_integrations import ColPali\n"
        "logging.basicConfig(format='%(message)s')\n"
        "ort.get_available_providers = lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider']\n"
        "for _ in range(2):\n"
        "    with ColPali.from_pretrained() as model:\n"
        "        print(next(model.embed_queries('tide')).shape)\n"
    )
    command = [sys.executable, "-W", "ignore:Specified provider 'CUDAExecutionProvider'", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 128)\n" * 2
    assert done.stderr.strip() == (
        "CUDAExecutionProvider failed to start; models run on CPUExecutionProvider. `colpali-integrations doctor` "
        "shows why, and providers=['CPUExecutionProvider'] chooses it without this warning (logged once)"
    )
