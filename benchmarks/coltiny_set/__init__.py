"""Real PDFs that ColTiny's training never touched, questions about their pages, and the pages as bad scans."""

from __future__ import annotations

from pathlib import Path

from benchmarks.page_set import DPI, PageSet, fetch_package, scan

__all__ = ["DPI", "KINDS", "WORK", "documents", "fetch", "fetch_package", "load", "questions", "read", "scan", "scans"]

KINDS = ("paraphrase", "keywords", "table", "figure")

_set = PageSet(Path(__file__).parent)
WORK = _set.work
documents, questions, fetch = _set.documents, _set.questions, _set.fetch
read, load, scans = _set.read, _set.load, _set.scans
