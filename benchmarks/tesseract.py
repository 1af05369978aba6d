"""Tesseract over pictures of pages, one thread, one process per page, with the CPU time per page."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

LANGUAGES = {"en": "eng", "de": "deu", "fr": "fra", "es": "spa"}


def find() -> str | None:
    """Path of the program, or None."""
    return shutil.which("tesseract")


def version(program: str) -> str:
    run = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return (run.stdout or run.stderr).splitlines()[0]


def read(program: str, image: Path, language: str, dpi: int) -> tuple[str, float]:
    """Text of a picture, and CPU seconds (user and system, with the start of the process and the model's loading)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [program, str(image), "-", "-l", LANGUAGES[language], "--dpi", str(dpi)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_THREAD_LIMIT": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return run.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read_all(
    program: str, images: Sequence[Path], languages: Sequence[str], kept: Path, dpi: int
) -> list[tuple[str, float]]:
    """`read` of each picture; a folder caches the texts."""
    kept.mkdir(parents=True, exist_ok=True)
    found = []
    for image, language in zip(images, languages, strict=True):
        file = kept / f"{image.stem}.json"
        if not file.exists():
            text, seconds = read(program, image, language, dpi)
            file.write_text(json.dumps({"text": text, "seconds": seconds}), encoding="utf-8")
        entry = json.loads(file.read_text(encoding="utf-8"))
        found.append((entry["text"], entry["seconds"]))
    return found
