"""Sessions: the memory that they keep between runs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from colpali_integrations.runtime.arrays import GraphFiles
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.session import ModelSessions
from tests.runtime.test_machine import STATUS, resident


@pytest.mark.skipif(not STATUS.exists(), reason="resident memory is read from /proc")
def test_a_session_returns_the_memory_of_a_large_run(tmp_path: Path) -> None:
    """Otherwise its arena would keep the memory of the largest run for ever."""
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        outer (float[n, 1] pixel_values) => (float[n] output) {
            row = Transpose(pixel_values)
            products = MatMul(pixel_values, row)
            output = ReduceMax <axes = [1], keepdims = 0> (products)
        }
        """
    )
    onnx.save(model, tmp_path / "model.onnx")
    sessions = ModelSessions(GraphFiles(*[tmp_path / "model.onnx"] * 2), SessionConfig(split=False, threads=1))
    sessions.pages({"pixel_values": np.ones((10, 1), np.float32)})
    before = resident()
    sessions.pages({"pixel_values": np.ones((6000, 1), np.float32)})  # 137 MiB of products
    assert resident() - before < 70


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_onnxruntime_reports_nothing_and_lets_a_forked_process_end() -> None:
    """Every module that imports onnxruntime does so after the switch is set."""
    code = """
import os, sys
import colpali_integrations.scoring, colpali_integrations.models
from colpali_integrations import ColPali
assert ColPali and "onnxruntime" in sys.modules and os.environ["ORT_DISABLE_TELEMETRY"] == "1"
if os.fork() == 0:
    sys.exit(0)  # not os._exit: the libraries' own cleaning up is what hung
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], env=environment, start_new_session=True)
    try:
        assert process.wait(timeout=60) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a child that hangs would outlive its parent
        process.wait()
