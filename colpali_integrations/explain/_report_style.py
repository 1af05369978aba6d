"""The style of a report and the behaviour of its toggles, in CSS alone: a report runs no script."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["STYLE", "word_rules"]

STYLE = "\n" + files("colpali_integrations.explain").joinpath("_report.css").read_text(encoding="utf-8")


def word_rules(count: int) -> str:
    """Make the rules that dim all other words when one of `count` words is chosen, or hovered in a page's list."""
    rules = []
    for index in range(count):
        chosen, listed = f":root:has(#w{index}:checked)", f"article:has(.found .w{index}:hover)"
        rules.append(
            f"{chosen} .heat.w{index}{{opacity:1}}{chosen} .box:not(.w{index}){{opacity:.18}}"
            f"{chosen} .found li:not(.w{index}){{opacity:.5}}"
            f"{listed} .box:not(.w{index}){{opacity:.18}}{listed} .box.w{index}{{z-index:5}}"
            f"{listed} .box.w{index} .tip{{opacity:1}}"
            f"{listed} .heat.all{{opacity:0}}{listed} .heat.w{index}{{opacity:1}}"
        )
    return "\n".join(rules)
