"""The program of LibreOffice: where it is, its version, its settings and its arguments."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from colpali_integrations.errors import OfficeError

__all__ = [
    "PACKAGES",
    "SOCKET_FOLDER",
    "VARIABLE",
    "arguments",
    "find_soffice",
    "socket_path",
    "soffice_version",
    "write_profile",
]

VARIABLE = "COLPALI_SOFFICE"
"""The environment's variable that names another program than the one in the search path."""

SOCKET_FOLDER = "/tmp"
"""Where LibreOffice makes a socket, whatever the environment says."""

PACKAGES = (
    "Debian: apt-get install libreoffice-writer-nogui libreoffice-calc-nogui libreoffice-impress-nogui; "
    "macOS: brew install --cask libreoffice; Windows: winget install TheDocumentFoundation.LibreOffice"
)
"""The commands that install it."""

_PLACES = {
    "darwin": ("/Applications/LibreOffice.app/Contents/MacOS/soffice",),
    "win32": (
        r"C:\Program Files\LibreOffice\program\soffice.com",
        r"C:\Program Files (x86)\LibreOffice\program\soffice.com",
    ),
}
_VERSION_SECONDS = 30.0

# Path of a group of settings, name and value. A name that a version does not have is passed over.
_SETTINGS: Sequence[tuple[str, str, str]] = (
    # Programs in documents
    ("Office.Common/Security/Scripting", "MacroSecurityLevel", "3"),
    ("Office.Common/Security/Scripting", "DisableMacrosExecution", "true"),
    ("Office.Common/Security/Scripting", "DisablePythonRuntime", "true"),
    ("Office.Common/Security/Scripting", "DisableActiveContent", "true"),
    ("Office.Common/Security/Scripting", "CheckDocumentEvents", "true"),
    ("Office.Java/VirtualMachine", "Enable", "false"),
    # Links of documents
    ("Office.Common/Security/Scripting", "BlockUntrustedRefererLinks", "true"),
    ("Office.Writer/Content/Update", "Link", "2"),
    ("Office.Calc/Content/Update", "Link", "2"),
    ("Office.Calc/Formula/Load", "OOXMLRecalcMode", "1"),
    ("Office.Calc/Formula/Load", "ODFRecalcMode", "1"),
    # Embedded documents stay pictures
    ("Office.Common/Filter/Microsoft/Import", "MathTypeToMath", "false"),
    ("Office.Common/Filter/Microsoft/Import", "WinWordToWriter", "false"),
    ("Office.Common/Filter/Microsoft/Import", "ExcelToCalc", "false"),
    ("Office.Common/Filter/Microsoft/Import", "PowerPointToImpress", "false"),
    ("Office.Common/Filter/Microsoft/Import", "SmartArtToShapes", "false"),
    # The network: a proxy that does not exist, for every host
    ("Inet/Settings", "ooInetProxyType", "2"),
    ("Inet/Settings", "ooInetNoProxy", ""),
    *(
        ("Inet/Settings", f"ooInet{kind}Proxy{part}", value)
        for kind in ("HTTP", "HTTPS", "FTP")
        for part, value in (("Name", "127.0.0.1"), ("Port", "1"))
    ),
    # Files beside the document
    ("Office.Common/Misc", "UseLocking", "false"),
    ("Office.Common/Misc", "CollectUsageInformation", "false"),
    ("Office.Common/Misc", "CrashReport", "false"),
    ("Office.Recovery/AutoSave", "Enabled", "false"),
    ("Office.Recovery/RecoveryInfo", "Enabled", "false"),
)


def find_soffice() -> str:
    """The path of LibreOffice's program.

    Raises:
        OfficeError: there is none; the message says how to install it.
    """
    named = os.environ.get(VARIABLE)
    if named:
        found = shutil.which(os.path.expanduser(named))  # noqa: PTH111 - a name in the search path too
        if found is None:
            raise OfficeError(f"needs LibreOffice, and {VARIABLE}={named} is no program")
        return os.path.abspath(found)  # noqa: PTH100 - its folder counts, and not that of a link's target
    for name in ("soffice", "libreoffice", *_PLACES.get(sys.platform, ())):
        if (found := shutil.which(name)) is not None:
            return os.path.abspath(found)  # noqa: PTH100
    raise OfficeError(f"needs LibreOffice, which is not installed. {PACKAGES}. {VARIABLE} may name its soffice")


def soffice_version() -> str:
    """The version, such as "LibreOffice 7.4.7.2".

    Raises:
        OfficeError: there is none, or it does not start.
    """
    program = find_soffice()
    try:
        shown = subprocess.run(
            [program, "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=True, stdin=subprocess.DEVNULL
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError) as error:
        raise OfficeError(f"LibreOffice does not start: {error}") from error
    found = re.search(r"LibreOffice\w* [\d.]+", shown)
    return found[0] if found else shown.strip()[:100]


def arguments(program: str, work: Path, document: Path, reader: str, writer: str) -> list[str]:
    """The command that converts a document to PDF.

    Args:
        program: of LibreOffice.
        work: the folder with the profile of settings and the folder of the result.
        document: the file.
        reader: LibreOffice's name of the filter that reads it.
        writer: "writer", "calc" or "impress".
    """
    return [
        _binary(program),
        f"-env:UserInstallation={(work / 'profile').as_uri()}",
        *(
            "--headless",
            "--invisible",
            "--norestore",
            "--nolockcheck",
            "--nodefault",
            "--nologo",
            "--nofirststartwizard",
        ),
        f"--infilter={reader}",
        *("--convert-to", f"pdf:{writer}_pdf_Export", "--outdir", str(work / "out"), str(document)),
    ]


def socket_path(work: Path) -> Path | None:
    """The path of the socket by which a second start finds the first; None where the system has none.

    LibreOffice makes it outside of its profile, and may not be allowed to remove it.
    """
    if os.name != "posix":
        return None
    profile = hashlib.md5((work / "profile").as_uri().encode("utf-16-le"), usedforsecurity=False).digest()
    name = "".join(f"{byte:x}" for byte in profile)  # without leading zeros, as LibreOffice writes it
    return Path(SOCKET_FOLDER) / f"OSL_PIPE_{os.getuid()}_SingleOfficeIPC_{name}"


def _binary(program: str) -> str:
    """The program itself in the place of the script that starts it, so that no process stands between.

    A script of another kind, such as that of a sandbox, is left as it is.
    """
    binary = Path(os.path.realpath(program)).with_name("soffice.bin")
    return str(binary) if binary.is_file() and os.name == "posix" else program


def write_profile(folder: Path) -> None:
    """Make a profile of settings without macros, links, network, recovery and Java."""
    user = folder / "user"
    user.mkdir(parents=True)
    items = "".join(
        f'<item oor:path={quoteattr(f"/org.openoffice.{path}")}><prop oor:name={quoteattr(name)} oor:op="fuse">'
        f"<value>{escape(value)}</value></prop></item>"
        for path, name, value in _SETTINGS
    )
    (user / "registrymodifications.xcu").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<oor:items xmlns:oor="http://openoffice.org/2001/registry" '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"{items}</oor:items>\n",
        encoding="utf-8",
    )
