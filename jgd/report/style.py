"""The look of the report: one column, numbers that line up, nothing that needs a network."""

from jgd.report.figures import BAR, DARK, HUES, INK, MUTED, PAPER, RULE
from jgd.report.markup import palette

__all__ = ["CSS"]

_NAMES = {"ink": INK, "muted": MUTED, "rule": RULE, "paper": PAPER, "bar": BAR, "accent": HUES[0]}
_ALIASES = " ".join(f"--{name}: var(--c{list(DARK).index(color)});" for name, color in _NAMES.items())

CSS = (
    f"""
:root {{ color-scheme: light dark; {palette(dark=False)} {_ALIASES} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {palette(dark=True)} }} }}
"""
    + """
:root {
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 3rem; max-width: 62rem;
  background: var(--paper); color: var(--ink);
  font: 1.0625rem/1.55 var(--serif); font-variant-numeric: tabular-nums lining-nums;
  overflow-wrap: break-word;
}
h1 { margin: 0 0 .75rem; font-size: 1.75rem; line-height: 1.2; font-weight: 600; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.25rem; line-height: 1.3; font-weight: 600; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1.0625rem; font-weight: 600; }
p { margin: 0 0 .9rem; max-width: 44rem; }
a { color: var(--accent); text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
.lead { font-size: 1.1875rem; }
.skip { position: absolute; left: -999rem; }
.skip:focus { position: static; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap;
}
nav ul {
  display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1.5rem 0 0; padding: 0; list-style: none;
}
nav, table, .key, .settings, pre, code { font-family: var(--sans); font-size: .9375rem; }
pre, code { font-family: var(--mono); font-size: .875rem; }
.key {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1.25rem 2rem;
  margin: 1.75rem 0 0; padding: 1.1rem 0; border-block: 1px solid var(--rule);
}
.key dt { color: var(--muted); }
.key dd { margin: 0; color: var(--muted); }
.key dd strong { display: block; color: var(--ink); font-size: 1.25rem; font-weight: 600; }
.scroll { position: relative; overflow-x: auto; max-width: 100%; padding-bottom: .25rem; }
table { border-collapse: collapse; min-width: 100%; line-height: 1.4; }
caption, figcaption, .note { max-width: 44rem; text-align: left; font: .9375rem/1.5 var(--serif); }
caption { margin-bottom: .6rem; }
figcaption, .note { margin-top: .5rem; }
th, td { padding: .35rem .75rem; text-align: right; vertical-align: baseline; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
th[scope=row], thead th:first-child { text-align: left; }
th[scope=row] { font-weight: 400; }
th.group { padding-top: .7rem; color: var(--muted); font-weight: 400; text-align: left; }
tr.method th, td.best { font-weight: 700; }
th[scope=colgroup] { text-align: center; border-bottom: 1px solid var(--rule); }
thead tr:nth-child(2) th:first-child { padding-left: .75rem; text-align: right; }
thead { border-top: 1.5px solid var(--ink); border-bottom: 1px solid var(--ink); }
tbody { border-bottom: 1px solid var(--rule); }
tbody:last-child { border-bottom: 1.5px solid var(--ink); }
td .mark { position: absolute; }
figure { margin: 0; }
svg.plot {
  display: block; width: 100%; height: auto; max-width: var(--natural); min-width: min(var(--natural), 40rem);
}
svg.plot text { font-family: var(--sans); font-variant-numeric: tabular-nums; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
.settings {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .2rem 2rem; margin: 0;
}
.settings div { display: grid; grid-template-columns: 9rem 1fr; gap: 1rem; }
.settings dt { color: var(--muted); }
.settings dd { margin: 0; }
.settings dt, .settings dd { min-width: 0; overflow-wrap: anywhere; }
pre {
  margin: 0 0 .9rem; padding: .75rem 1rem; overflow-x: auto; border: 1px solid var(--rule); line-height: 1.45;
}
summary { cursor: pointer; }
details pre { margin-top: .75rem; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--rule); color: var(--muted);
  font-size: .9375rem; }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 2rem; font-size: 1rem; }
  h1 { font-size: 1.4rem; }
  .lead { font-size: 1.0625rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, .skip { display: none; }
  .key { grid-template-columns: repeat(4, 1fr); gap: 1rem; }
  .key dd strong { font-size: 1.1em; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  table { font-size: 8.5pt; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  svg.plot { min-width: 0; }
}
"""
)
