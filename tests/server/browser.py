"""A headless Chromium that reports every error of the search page."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
_DROP = """([files, kind]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name));
  }
  const event = new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.getElementById("main").dispatchEvent(event);
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser of Playwright, with a profile of its own; without it the test is skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install --group test")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("the search page is tested in Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """The search page of a server in a window of its own.

    Raises:
        AssertionError: at the end, if the page had an error, broke its policy, or called another host.
    """
    faults: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, "reduced_motion": "reduce", **options})
    context.set_default_timeout(30_000)
    page, origin = context.new_page(), url.partition("/#")[0]
    page.faults = faults

    def log(message: Any) -> None:
        if message.type in ("error", "warning"):
            faults.append(f"{message.type}: {message.text} {message.location}")

    def dismiss(dialog: Any) -> None:
        faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def look(request: Any) -> None:
        if not request.url.startswith((origin, "blob:")):
            faults.append(f"another host: {request.url}")

    page.on("console", log)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", dismiss)
    page.on("request", look)
    try:
        page.goto(url)
        yield page
        assert faults == []
    finally:
        context.close()


def drop(page: Any, *files: Path | tuple[str, bytes], welcome: bool = True) -> None:
    """Drop files on the page, as from the desktop; the events are those of a person's drop.

    Args:
        page: that shows whether they are welcome.
        files: or their names and contents.
        welcome: whether they should be.
    """
    pairs = [(one.name, one.read_bytes()) if isinstance(one, Path) else one for one in files]
    encoded = [[name, base64.b64encode(content).decode()] for name, content in pairs]
    page.evaluate(_DROP, [encoded, "dragenter"])
    assert page.locator("#drop").is_visible() == welcome
    page.evaluate(_DROP, [encoded, "drop"])
    assert not page.locator("#drop").is_visible()


def ask(page: Any, question: str) -> None:
    """Ask by the keyboard."""
    page.locator("#ask").wait_for()
    if page.evaluate("document.activeElement.id") != "question":
        page.keyboard.press("/")
    page.keyboard.press("Control+a")
    page.keyboard.type(question)
    page.keyboard.press("Enter")
