"""How a report looks and what its toggles do, in CSS alone: what runs no script needs no trust."""

from __future__ import annotations

__all__ = ["STYLE", "word_rules"]

_LIGHT = "--paper:#f6f5f2;--card:#fff;--ink:#1d1c1a;--soft:#67635c;--line:#dedad2;--accent:#0b62a8;--mark:#ffe49a"
_DARK = "--paper:#141517;--card:#1e2023;--ink:#ecebe8;--soft:#a3a099;--line:#36393e;--accent:#6cb6f5;--mark:#6b5413"

STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}}}
@media (prefers-color-scheme:dark){{:root:not(:has(#light:checked)){{{_DARK}}}}}
:root:has(#light:checked){{color-scheme:light}}
:root:has(#dark:checked){{color-scheme:dark;{_DARK}}}
*{{box-sizing:border-box}}
body{{margin:0;padding:28px clamp(14px,3vw,44px) 60px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}}
header{{max-width:70ch}}
.about{{margin:0;color:var(--soft);font-size:13px}}
h1{{margin:2px 0 14px;font-size:clamp(22px,2.6vw,32px);line-height:1.2;font-weight:650;letter-spacing:-.01em;
overflow-wrap:anywhere}}
.note{{color:var(--soft);margin:0 0 14px}}
.controls{{position:sticky;top:0;z-index:9;display:flex;flex-wrap:wrap;gap:8px 22px;margin:0 -10px 20px;padding:10px;
background:color-mix(in srgb,var(--paper) 92%,transparent);backdrop-filter:blur(6px);
border-bottom:1px solid var(--line)}}
fieldset{{display:flex;flex-wrap:wrap;align-items:center;gap:6px;border:0;margin:0;padding:0;min-width:0}}
legend{{float:left;margin-right:4px;padding:0;font-size:12px;color:var(--soft)}}
.theme{{margin-left:auto}}
.chip{{position:relative;cursor:pointer;max-width:100%}}
.chip input{{position:absolute;inset:0;margin:0;opacity:0;cursor:pointer}}
.chip span{{display:flex;align-items:center;gap:6px;padding:3px 11px;border:1px solid var(--line);border-radius:99px;
background:var(--card);font-size:13px;color:var(--soft);overflow-wrap:anywhere}}
.chip input:checked+span{{border-color:var(--accent);color:var(--ink);
background:color-mix(in srgb,var(--accent) 14%,var(--card))}}
.chip:hover span{{color:var(--ink)}}
.chip input:focus-visible+span,.box:focus-visible{{outline:3px solid var(--accent);outline-offset:3px}}
.absent span{{opacity:.55}}
.dot{{width:9px;height:9px;border-radius:50%;flex:none}}
main{{display:grid;gap:22px;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr))}}
:root:has(#large:checked) main{{grid-template-columns:minmax(0,1000px);justify-content:center}}
article{{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px;min-width:0;
box-shadow:0 1px 2px #0001,0 6px 20px #0000000a}}
h2{{margin:0;font-size:15px;font-weight:600;overflow-wrap:anywhere}}
.rank{{display:inline-block;min-width:22px;padding:0 6px;margin-right:4px;border-radius:6px;text-align:center;
background:var(--ink);color:var(--card);font-size:12px;line-height:20px}}
.numbers{{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:center;margin:4px 0 10px;
color:var(--soft);font-size:13px}}
.numbers b{{color:var(--ink)}}
b{{font-variant-numeric:tabular-nums;font-weight:600}}
.bar{{flex:1;min-width:40px;height:5px;border-radius:9px;background:var(--line);overflow:hidden}}
.bar i{{display:block;height:100%;border-radius:9px;background:var(--c,var(--accent))}}
figure{{position:relative;margin:0;background:#fff;border:1px solid var(--line);border-radius:4px}}
figure img{{position:absolute;inset:0;width:100%;height:100%;display:block;border-radius:3px}}
.heat{{opacity:0;transition:opacity .18s;pointer-events:none}}
.heat.all{{opacity:1}}
:root:has(#heat:not(:checked)) .heat{{opacity:0!important}}
:root:has(#boxes:not(:checked)) .box{{display:none}}
:root:has([name=word]:checked:not(#wall)) .heat.all{{opacity:0}}
.box{{position:absolute;border-radius:2px;box-shadow:0 0 0 1px #fff9,0 0 0 3px var(--c);
background:color-mix(in srgb,var(--c) 8%,transparent);
transition:opacity .18s,background .18s;cursor:help}}
.box:hover,.box:focus{{z-index:5;background:color-mix(in srgb,var(--c) 22%,transparent)}}
.tip{{position:absolute;left:-3px;bottom:calc(100% + 7px);padding:2px 8px;border-radius:5px;background:var(--c);
color:#fff;font-size:13px;line-height:1.45;white-space:nowrap;opacity:0;pointer-events:none;transition:opacity .12s;
box-shadow:0 2px 8px #0005}}
.below .tip{{bottom:auto;top:calc(100% + 7px)}}
.leftward .tip{{left:auto;right:-3px}}
.box:hover .tip,.box:focus .tip{{opacity:1}}
.found{{list-style:none;margin:12px 0 0;padding:0;display:grid;gap:1px}}
.found li{{display:grid;grid-template-columns:minmax(70px,auto) 1fr auto;align-items:center;gap:10px;padding:1px 6px;
margin:0 -6px;border-radius:6px;font-size:13px}}
.found li:hover{{background:color-mix(in srgb,var(--c) 14%,transparent)}}
.found li>span:first-child{{overflow-wrap:anywhere}}
.text{{margin:12px 0 0;font-size:13px;color:var(--soft);overflow-wrap:anywhere}}
mark{{background:var(--mark);color:var(--ink);border-radius:3px;padding:0 2px}}
.missing{{margin:0;padding:26px 18px;border:1px dashed var(--line);border-radius:8px;color:var(--soft);font-size:13px;
overflow-wrap:anywhere}}
.source{{margin:10px 0 0;font-size:12px;color:var(--soft);overflow-wrap:anywhere}}
@media (prefers-reduced-motion:reduce){{*{{transition:none!important}}}}
@media print{{.controls{{display:none}}article{{break-inside:avoid}}}}
@media (forced-colors:active){{.box{{outline:2px solid Highlight}}}}
"""


def word_rules(count: int) -> str:
    """What happens when one of `count` words is chosen, or hovered in a page's list: the others step back."""
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
