"""The program that converts one document for another process: `python -m colpali_integrations.office.worker`.

Its arguments are the version of its caller and a job in JSON: `work`, a folder of its own with the file `document`;
`suffix`, `program`, and the limits. It takes out of the document what leads out of it, lets LibreOffice convert it, and
prints an answer as JSON: `texts`, by the number of a page what belongs to its text, or `error`. The PDF is in `out`.

It runs until its standard input is closed at the latest, and so ends with its caller, however that ends. Then it ends
LibreOffice and removes the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from colpali_integrations._version import __version__
from colpali_integrations.errors import PdfError
from colpali_integrations.office import confine, soffice
from colpali_integrations.office.cleaning import Cleaned, cleaned
from colpali_integrations.office.formats import BINARY
from colpali_integrations.office.texts import page_texts
from colpali_integrations.pdfium.limits import address_space, lift_limits, no_core_dumps, set_limits
from colpali_integrations.pdfium.messages import OTHER_VERSION

__all__ = ["main"]

_RESTARTS = (79, 81)  # LibreOffice asks to be started again, as after it has made its profile
_MOST_STARTS = 3
_MOST_ERROR = 2000
_HOW_OTHERWISE = "convert it to PDF with LibreOffice yourself, if you trust it"


def main() -> None:
    """Convert the document of the job."""
    version, encoded = sys.argv[1:]
    if version != __version__:
        sys.exit(OTHER_VERSION)
    no_core_dumps()
    job: dict[str, Any] = json.loads(encoded)
    work = Path(job["work"])
    program = _Program(work)
    threading.Thread(target=program.end_with_caller, daemon=True).start()
    try:
        answer: dict[str, Any] = {"texts": _converted(job, work, program)}
    except PdfError as error:
        answer = {"error": str(error)}
    except MemoryError:
        answer = {"error": f"needs more than {job['memory'] / 1e9:g} GB of memory; {_HOW_OTHERWISE}"}
    except Exception as error:  # foreign, such as that of a full disk
        answer = {"error": f"cannot be converted: {type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))


def _converted(job: dict[str, Any], work: Path, program: _Program) -> dict[str, str]:
    start = address_space()
    set_limits(job["cpu_seconds"], start and start + job["memory"])
    document = cleaned((work / "document").read_bytes(), job["suffix"])
    for name in ("in", "out", "tmp", "home"):
        (work / name).mkdir()
    place = work / "in" / f"document{document.format.suffix}"
    place.write_bytes(document.content)
    (work / "document").unlink()
    lift_limits()
    soffice.write_profile(work / "profile")
    _link_fonts(work / "home")
    _run(job, work, place, document, program)
    set_limits(job["cpu_seconds"], start and start + job["memory"])
    return page_texts(work / "out" / "document.pdf", document)


def _run(job: dict[str, Any], work: Path, place: Path, document: Cleaned, program: _Program) -> None:
    command = soffice.arguments(job["program"], work, place, document.format.reader, document.format.program)
    fonts = [str(path) for path in _font_folders() if path.is_dir()]
    confined = {
        "command": command,
        "readable": [_installation(job["program"]), _installation(command[0]), str(place.parent), *fonts],
        "writable": [str(work / name) for name in ("profile", "out", "tmp", "home")],
        "sockets": [soffice.SOCKET_FOLDER],
        "cpu_seconds": job["cpu_seconds"],
        "memory": job["memory"],
        "file_bytes": job["result_bytes"],
        "required": document.format.suffix in BINARY,
    }
    deadline = time.monotonic() + job["seconds"]
    code: int | None = _RESTARTS[0]
    for _ in range(_MOST_STARTS):
        if code in _RESTARTS:
            code = program.run(confined, deadline)
    if (work / "out" / "document.pdf").is_file() and code == 0:
        return
    raise PdfError(_reason(job, code, program.message))


def _reason(job: dict[str, Any], code: int | None, message: str) -> str:
    if code is None:
        return f"takes more than {job['seconds']:g} s; {_HOW_OTHERWISE}"
    if code == confine.NOT_CONFINED:
        return "is of a binary format, which is converted only where LibreOffice can be closed off; see docs/office.md"
    if code in (-getattr(signal, "SIGXCPU", 0), -getattr(signal, "SIGKILL", 0)):
        return f"takes more than {job['cpu_seconds']:g} s of processor time; {_HOW_OTHERWISE}"
    if "no export filter" in message:
        return f"needs a part of LibreOffice that is not installed. {soffice.PACKAGES}"
    said = f" ({message})" if message else ""
    return (
        f"cannot be converted by LibreOffice, code {code}{said}: it is damaged, encrypted, or needs more than "
        f"{job['memory'] / 1e9:g} GB of memory"
    )


class _Program:
    """LibreOffice, as long as it runs.

    Args:
        work: the folder of the job.

    Attributes:
        message: what it wrote about an error.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._ended = False
        self.message = ""

    def run(self, confined: dict[str, Any], deadline: float) -> int | None:
        """Run it to its end; returns its code, or None where its time is over."""
        log = self._work / "log"
        with log.open("wb") as errors, self._starting:
            if self._ended:
                return None
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(confine.__file__)), json.dumps(confined)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=self._work / "tmp",
                env=_environment(self._work),
                start_new_session=True,
            )
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._kill()
            lines = log.read_bytes()[:_MOST_ERROR].decode("utf-8", "replace").splitlines()
            told = [line.strip() for line in lines if line.lower().startswith("error")]
            self.message = told[-1].replace(str(self._work), "") if told else ""

    def end_with_caller(self) -> None:
        """Wait until the standard input is closed; then end everything."""
        with suppress(OSError):
            while os.read(0, 1024):
                pass
        with self._starting:
            self._ended = True
            self._kill()
        shutil.rmtree(self._work, ignore_errors=True)
        os._exit(0)

    def _kill(self) -> None:
        """End it and the processes that it has started."""
        if self._process is None:
            return
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)  # its session has its number
            else:
                self._process.kill()
        with suppress(OSError):
            self._process.wait()
        socket = soffice.socket_path(self._work)
        if socket is not None:
            socket.unlink(missing_ok=True)


def _environment(work: Path) -> dict[str, str]:
    """The variables that LibreOffice gets: none of the caller's, which may hold secrets, but those of the system."""
    home = str(work / "home")
    kept = {
        name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "WINDIR", "LD_LIBRARY_PATH") if name in os.environ
    }
    made = {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home, "TMPDIR": str(work / "tmp")}
    return {
        **kept,
        **made,
        "TMP": made["TMPDIR"],
        "TEMP": made["TMPDIR"],
        "LC_ALL": "C.UTF-8",
        "SAL_USE_VCLPLUGIN": "svp",
    }


def _font_folders() -> list[Path]:
    data = os.environ.get("XDG_DATA_HOME")
    return [Path.home() / ".fonts", (Path(data) if data else Path.home() / ".local" / "share") / "fonts"]


def _link_fonts(home: Path) -> None:
    """Let LibreOffice find the fonts of this user in the folder that it takes for the user's."""
    fonts = home / ".fonts"
    for number, folder in enumerate(_font_folders()):
        if folder.is_dir():
            fonts.mkdir(exist_ok=True)
            with suppress(OSError):
                (fonts / str(number)).symlink_to(folder)


def _installation(program: str) -> str:
    """The folder that holds LibreOffice: two above its program; of a script elsewhere, the folder of the script."""
    folder = Path(os.path.realpath(program)).parent
    # Two above ~/bin/soffice are all files of the user.
    return str(folder.parent if folder.name == "program" else folder)


if __name__ == "__main__":
    main()
