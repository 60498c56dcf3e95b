"""The style sheet of a page: light and dark, wide and narrow, screen and paper; no font and no picture is loaded."""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "STYLE"]

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#57606a",
    "line": "#dde2e7",
    "wash": "#f4f6f8",
    "student": "#005a9c",
    "teacher": "#b14708",
    "mlp": "#646c75",
}
DARK = {
    "paper": "#111418",
    "ink": "#e6e9ed",
    "muted": "#9fa9b4",
    "line": "#2c333b",
    "wash": "#1a1f25",
    "student": "#6fb4f2",
    "teacher": "#f0a560",
    "mlp": "#a6afb9",
}
"""Blue, orange and grey differ for every kind of colour vision; a test checks their contrast against the paper."""


def _variables(palette: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in palette.items())


_MARKS = "".join(
    f".{role}{{fill:var(--{role});stroke:none}}"
    f".{role}.hollow{{fill:var(--paper);stroke:var(--{role});stroke-width:1.5}}"
    f".{role}.seed{{fill-opacity:.5}}"
    f".{role}.mean{{stroke:var(--{role});stroke-width:2.5}}"
    f".{role}.whisker{{stroke:var(--{role});stroke-width:1.5;stroke-opacity:.6}}"
    f".{role}.curve{{fill:none;stroke:var(--{role});stroke-width:1.6;stroke-linejoin:round}}"
    f".{role}.leader{{fill:none;stroke:var(--{role});stroke-width:1;stroke-dasharray:1 2;stroke-opacity:.7}}"
    f".{role}-text{{fill:var(--{role});color:var(--{role})}}"
    for role in ("student", "teacher", "mlp")
)

STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    + """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
  font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
  font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
main{max-width:66rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
.kicker{margin:0;color:var(--muted);font-size:.875rem}
h1{margin:.25rem 0 1rem;font-size:1.75rem;line-height:1.25;font-weight:650;letter-spacing:-.01em;max-width:34em}
h2{margin:3.5rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--line);
  font-size:1.25rem;line-height:1.3;font-weight:650}
h3{margin:2rem 0 .25rem;font-size:1rem;font-weight:650}
p{margin:.5rem 0;max-width:44em}
.lead{font-size:1.0625rem}
.note,.missing{color:var(--muted);font-size:.875rem}
dl.key{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1.5rem;margin:1.75rem 0 0}
dl.key dt{font-size:.875rem;line-height:1.3}
dl.key dd{margin:0;font-size:.8125rem;line-height:1.4;color:var(--muted)}
dl.key dd.figure{font-size:1.625rem;line-height:1.35;font-weight:600;color:var(--ink)}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:2rem 3.5rem;
  margin:1.25rem 0;align-items:start}
.columns{columns:2 20rem;column-gap:3.5rem;margin:1.25rem 0}
.columns>*{break-inside:avoid;margin:0 0 2rem}
.beside{display:flex;flex-wrap:wrap;gap:1rem 3.5rem;align-items:flex-start;margin:1.25rem 0}
.beside>figure{flex:1 1 20rem}
.beside>.tabular,.charts>.tabular{flex:0 1 auto;min-width:0;margin:0}
figure{margin:0;max-width:28rem}
figcaption{font-size:.9375rem;font-weight:600;margin-bottom:.5rem}
svg{display:block;width:100%;height:auto;overflow:visible;
  font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
svg text{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
svg .tick,svg .axis{fill:var(--muted);font-size:11px}
svg .heading{font-weight:600}
svg .value{font-weight:600}
svg .few{font-weight:400;fill:var(--muted)}
.grid{stroke:var(--line);stroke-width:1}
.diagonal{stroke:var(--muted);stroke-width:1;stroke-dasharray:3 3}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.875rem;line-height:1.35}
.caption{margin:0 0 .4rem;font-size:.9375rem;font-weight:600}
.tabular{margin:1rem 0;max-width:100%}
th,td{padding:.3rem .8rem .3rem 0;text-align:right;white-space:nowrap;
  border-bottom:1px solid var(--line);vertical-align:baseline}
th:first-child,td:first-child{text-align:left}
thead th{color:var(--muted);font-weight:500}
tbody th{font-weight:500;max-width:22rem;overflow:hidden;text-overflow:ellipsis}
table.matrix td{text-align:center;min-width:2.4rem;padding:.3rem .4rem;border:1px solid var(--paper)}
table.matrix th{padding-right:.6rem;max-width:9rem}
table.matrix thead th{text-align:center;vertical-align:bottom}
table.matrix .tall{display:inline-block;writing-mode:vertical-rl;transform:rotate(180deg);max-height:9rem;
  overflow:hidden;text-overflow:ellipsis}
table.matrix td.right{background:color-mix(in srgb,var(--student) var(--share),transparent)}
table.matrix td.wrong{background:color-mix(in srgb,var(--teacher) var(--share),transparent)}
table.matrix td.none{color:var(--muted)}
table.facts td{text-align:left;white-space:normal;overflow-wrap:anywhere;padding-right:0}
table.facts th{vertical-align:top;white-space:nowrap}
details{margin:.75rem 0}
summary{cursor:pointer;color:var(--muted);font-size:.875rem}
a{color:var(--student)}
pre{margin:.75rem 0;padding:.75rem 1rem;background:var(--wash);border-radius:.25rem;overflow-x:auto;font-size:.8125rem;
  line-height:1.5;overflow-wrap:normal}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
@media (max-width:30rem){main{padding:1.5rem 1rem 3rem}h1{font-size:1.375rem}h2{margin-top:2.5rem}
  dl.key{grid-template-columns:1fr 1fr;gap:1rem}}
@media print{main{max-width:none;padding:0}body{font-size:10pt}h2,h3,summary{break-after:avoid}tr{break-inside:avoid}
  .charts,.columns{display:block;columns:2}.charts>*{break-inside:avoid;margin:0 0 1.5rem}.scroll{overflow:visible}
  details::details-content{content-visibility:visible;display:block;block-size:auto}}
"""
    + _MARKS
)
