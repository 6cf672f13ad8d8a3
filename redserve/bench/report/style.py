"""How the report looks, on paper, on a phone and in the dark."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59636e; --page: #fff; --rule: #d8dee4;
  --line: #0969da; --wash: #0969da2e; --bad: #c4281c; --limit: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --page: #0d1117;
  --rule: #30363d; --line: #58a6ff; --wash: #58a6ff3d; --bad: #ff7b72; --limit: #d29922; } }
body { margin: 0 auto; max-width: 46rem; padding: 1.5rem 1rem 3rem; background: var(--page);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0; } .note { color: var(--bad); } .soft, dt { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
.figures b { display: block; font-size: 1.35rem; line-height: 1.2; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; } dd { margin: 0;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { font-weight: 600; }
.broken { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--soft); }
.x { text-anchor: middle; } .y { text-anchor: end; } .grid { stroke: var(--rule); }
.line { fill: none; stroke: var(--line); stroke-width: 2; } .dot { fill: var(--line); }
.span { stroke: var(--line); stroke-width: 3; opacity: .5; } .area { fill: var(--wash);
  stroke: var(--line); stroke-width: 1.5; }
.bad { fill: none; stroke: var(--bad); stroke-width: 2; }
line.limit { stroke: var(--limit); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg text.limit { fill: var(--limit); }
"""
