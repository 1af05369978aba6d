"""PDFs are read where the package is in a zip file, as `python -m zipapp` and some launchers make them."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import colpali_integrations
from tests.conftest import PAPER

PACKAGE = Path(colpali_integrations.__file__).parent
READ = """
import sys
import colpali_integrations
from colpali_integrations.pages import open_pdf
pdf = open_pdf(sys.argv[1])
print(".zip" in colpali_integrations.__file__, pdf.page_count, len(pdf.text(1)) > 100)
"""


def test_the_process_that_reads_pdfs_starts_from_a_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for file in PACKAGE.rglob("*.py"):
            archive.write(file, file.relative_to(PACKAGE.parent))
    start = f"import sys; sys.path.insert(0, {str(tmp_path / 'package.zip')!r})"
    command = [sys.executable, "-c", f"{start}\n{READ}", str(PAPER)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert (ended.stdout.split(), ended.stderr) == (["True", "12", "True"], "")
