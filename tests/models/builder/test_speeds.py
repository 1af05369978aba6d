"""The products of every precision are measured, and are right, on the processor at hand."""

from __future__ import annotations

from colpali_integrations.models.builder.speeds import LayerSpeed, precision_speeds


def test_every_precision_is_measured() -> None:
    speeds = precision_speeds()
    assert list(speeds) == ["float32", "int8", "int8-dynamic"]
    assert speeds["float32"] == LayerSpeed(1.0, 0.0)
    assert all(speed.ratio > 0 for speed in speeds.values())
    # An overflow of 16 bits would halve the sum.
    assert all(speed.error < 0.01 for speed in speeds.values())
