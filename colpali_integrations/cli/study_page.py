"""The report of `compress --sample`: one HTML file with a table and a plot, without scripts or other files."""

from __future__ import annotations

import math
from html import escape

from colpali_integrations.stores import Compression, CompressionStudy

__all__ = ["study_page"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _MARGIN = 720, 360, 60, 40, 20
_COLOURS = {"float16": "#444", "int8": "#1b6ca8", "int4": "#2a9d4b", "int2": "#c97b12", "binary": "#b23a48"}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}"
    "tr.best{font-weight:600;background:#eef7f0}svg{max-width:100%;height:auto}text{font:13px system-ui,sans-serif}"
)


def study_page(study: CompressionStudy, best: Compression, recall: float) -> str:
    """The report as HTML.

    Args:
        study: what was measured.
        best: the recommended way.
        recall: that it was to reach.
    """
    asked = study.asked == "questions"
    head = ("datatype", "pool factor", "bytes per page", "recall@10", *(("nDCG@10",) if asked else ()))
    rows = "".join(_row(way, asked, marked=way == best) for way in study.ways)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Compression of an index</title>'
        f"<style>{_STYLE}</style><h1>Compression of an index</h1>"
        f"<p>{study.pages} pages, {study.questions} questions. Recall is the share of the exact ten best pages among "
        f"the ten best. Recommended for a recall of {recall:g}: <b>{escape(best.datatype)}</b>, pool factor "
        f"<b>{best.pool_factor}</b>.</p>{plot(study, best)}"
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{rows}</table></html>"
    )


def _row(way: Compression, asked: bool, *, marked: bool) -> str:
    name = way.datatype if way.is_compressed else f"{way.datatype} (as it is)"
    cells = [escape(name), str(way.pool_factor), f"{way.bytes_per_page:,.0f}", f"{way.recall:.3f}"]
    if asked:
        cells.append("" if way.ndcg is None else f"{way.ndcg:.3f}")
    mark = ' class="best"' if marked else ""
    return f"<tr{mark}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def plot(study: CompressionStudy, best: Compression) -> str:
    """An SVG: bytes per page, with a logarithmic scale, against recall."""
    sizes = [math.log10(max(1.0, way.bytes_per_page)) for way in study.ways]
    low, high = min(sizes), max(max(sizes), min(sizes) + 0.1)
    lowest = min(0.9, math.floor(10 * min(way.recall for way in study.ways)) / 10)

    def place(size: float, recall: float) -> tuple[float, float]:
        across = (size - low) / (high - low) * (_WIDTH - _LEFT - _MARGIN)
        up = (recall - lowest) / (1 - lowest) * (_HEIGHT - _BOTTOM - _MARGIN)
        return round(_LEFT + across, 1), round(_HEIGHT - _BOTTOM - up, 1)

    parts = []
    for step in range(6):
        share = lowest + step * (1 - lowest) / 5
        _, y = place(low, share)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _MARGIN}" y1="{y}" y2="{y}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{share:.2f}</text>')
        size = low + step * (high - low) / 5
        x, _ = place(size, lowest)
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{10**size:,.0f}</text>')
    for way, size in zip(study.ways, sizes, strict=True):
        x, y = place(size, way.recall)
        ring = ' stroke="#000" stroke-width="2"' if way == best else ""
        name = f"{way.datatype}, pool factor {way.pool_factor}: {way.bytes_per_page:,.0f} bytes, {way.recall:.3f}"
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{_COLOURS[way.datatype]}"{ring}>')
        parts.append(f"<title>{escape(name)}</title></circle>")
    for number, (name, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + 90 * number
        parts.append(f'<circle cx="{x}" cy="8" r="5" fill="{colour}"/><text x="{x + 10}" y="12">{name}</text>')
    parts.append(f'<text x="{_WIDTH - _MARGIN}" y="{_HEIGHT - 4}" text-anchor="end">bytes per page</text>')
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Bytes per page against recall">'
        f"{''.join(parts)}</svg>"
    )
