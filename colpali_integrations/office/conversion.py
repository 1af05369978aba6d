"""The conversion of Office files to PDF, as its caller sees it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from colpali_integrations._forks import ForkLock
from colpali_integrations._text import parse_json
from colpali_integrations._version import __version__
from colpali_integrations.errors import ConfigurationError, OfficeError
from colpali_integrations.office.kept import Converted, KeptPdfs
from colpali_integrations.office.limits import OfficeLimits
from colpali_integrations.office.soffice import find_soffice
from colpali_integrations.pdfium.messages import OTHER_VERSION

__all__ = ["converted"]

# Another result for the same document needs another version, so that none of an earlier one is used.
_VERSION = 1
_ROOT = Path(__file__).parents[2]
_FOLDER = Path(__file__).parent
_MOST_REPLY = 2**26
_SECONDS_TO_END = 1.0
# LibreOffice uses some hundred MB and most of a core.
_one_at_a_time = ForkLock()


def converted(
    content: bytes, suffix: str, *, limits: OfficeLimits | None = None, kept: KeptPdfs | None = None
) -> Converted:
    """Convert a document, or find the result of an earlier conversion of equal content.

    Args:
        content: of the file.
        suffix: of its name, such as ".docx"; "" for content without a name. It decides for HTML.
        limits: of the conversion.
        kept: the results of earlier ones; None for those of this user.

    Raises:
        OfficeError: LibreOffice is not installed, or the document cannot be converted within the limits. The message
            is a sentence without a subject, such as "is encrypted".
        ConfigurationError: the folder of the results, or the process that converts, cannot be used.
    """
    limits, kept, suffix = limits or OfficeLimits(), kept or KeptPdfs(), suffix.lower()
    key = hashlib.sha256(f"{_VERSION} {suffix} {hashlib.sha256(content).hexdigest()}".encode()).hexdigest()
    found = kept.find(key)
    if found is not None:
        return found
    if len(content) > limits.document_bytes:
        raise OfficeError(f"has {len(content):,} bytes; {limits.document_bytes:,} are allowed")
    with _one_at_a_time:
        # Another thread may have converted the document meanwhile.
        return kept.find(key) or _convert(content, suffix, limits, kept, key)


def _convert(content: bytes, suffix: str, limits: OfficeLimits, kept: KeptPdfs, key: str) -> Converted:
    program = find_soffice()
    with _work_folder() as work:
        (work / "document").write_bytes(content)
        job = {"work": str(work), "suffix": suffix, "program": program, **asdict(limits)}
        texts = _answer(_reply(job, limits))
        return kept.keep(key, _result(work / "out" / "document.pdf", limits), texts)


@contextmanager
def _work_folder() -> Iterator[Path]:
    # Its path is short: that of a socket in it may have some hundred bytes.
    work = Path(tempfile.mkdtemp(prefix="colpali-office-")).resolve()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _reply(job: dict[str, Any], limits: OfficeLimits) -> bytes:
    """What the process answers, which ends with this one."""
    if getattr(sys, "frozen", False):
        raise ConfigurationError("a frozen application cannot convert Office files; convert them to PDF before")
    command = [sys.executable or "python", "-W", "ignore", "-m", "colpali_integrations.office.worker"]
    folders = [*(one for one in sys.path if one and Path(one).is_absolute()), str(_ROOT)]
    try:
        process = subprocess.Popen(
            [*command, __version__, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=_FOLDER if _FOLDER.is_dir() else os.sep,  # whose modules have names of their own
            env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))},
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends that one
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the process that converts Office files does not start: {error}") from error
    assert process.stdout is not None
    late = threading.Timer(limits.seconds + 2 * limits.cpu_seconds + 10, process.kill)
    late.daemon = True
    late.start()
    try:
        reply = process.stdout.read(_MOST_REPLY)
        code = process.wait()
    finally:
        late.cancel()
        _end(process)
    if code == OTHER_VERSION:
        raise ConfigurationError("colpali-integrations was updated; start this program again")
    if code != 0:
        raise OfficeError(f"breaks the process that converts Office files, or takes too long (code {code})")
    return reply


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, and give it time to end LibreOffice before."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_END)
    process.kill()
    process.wait()
    process.stdout.close()


def _answer(reply: bytes) -> dict[str, str]:
    try:
        answer = parse_json(reply)
        error, texts = answer.get("error"), answer.get("texts")
    except (ValueError, AttributeError) as damaged:
        raise OfficeError("breaks the process that converts Office files") from damaged
    if isinstance(error, str):
        raise OfficeError(error)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise OfficeError("breaks the process that converts Office files")
    return texts


def _result(path: Path, limits: OfficeLimits) -> bytes:
    """The PDF. LibreOffice may write to its folder, so a link there is not followed."""
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(file, "rb") as opened:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_size <= limits.result_bytes:
                content = opened.read()
                if content.startswith(b"%PDF-"):
                    return content
    except OSError as error:
        raise OfficeError(f"cannot be converted: {error.strerror}") from error
    raise OfficeError("cannot be converted by LibreOffice: the result is no PDF")
