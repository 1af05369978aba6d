"""Which threads of the pipeline are alive."""

from __future__ import annotations

import threading


def pipeline_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("colpali-pipeline")]
