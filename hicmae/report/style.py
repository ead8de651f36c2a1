"""The page's style and script: light and dark, narrow and wide, paper; nothing from elsewhere."""

from __future__ import annotations

from hicmae.figures.palette import COLOURS, OTHERS

STYLE = """
:root{color-scheme:light dark;--ink:#1d2330;--soft:#5d6675;--line:#d9dee7;--paper:#fff;--card:#f6f8fb;
--accent:#2f6db3;--good:#1f8a4c;--bad:#c0392b;--warn:#a05a00}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b4;--line:#333b49;--paper:#12161d;--card:#1a202a;
--accent:#6ea8e6;--good:#57c785;--bad:#ef7b6e;--warn:#e0a44a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1.2rem 1rem 3rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;margin:.2rem 0;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2.2rem 0 .7rem;
padding-bottom:.25rem;border-bottom:2px solid var(--line)}h3{font-size:1rem;margin:1.2rem 0 .4rem}
nav{font-size:.85rem;margin:.6rem 0}nav a{margin-right:.9rem;color:var(--accent);white-space:nowrap}
nav a.missing{color:var(--soft);text-decoration:line-through}
p{margin:.5rem 0}.note,small{color:var(--soft)}.note{font-size:.87rem;max-width:60rem}
.warn{border-left:4px solid var(--warn);padding:.3rem .7rem;background:var(--card)}.warned{color:var(--warn)}
.absent{border-left:4px solid var(--line);padding:.4rem .8rem;background:var(--card);color:var(--soft);
overflow-wrap:anywhere}.absent.failed{border-color:var(--bad)}
.status{padding:.05rem .5rem;border-radius:.7rem;color:#fff;background:#77808f}
.status.finished{background:#1f8a4c}.status.running{background:#2f6db3}
.status.stopped,.status.killed,.status.incomplete{background:#c0392b}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.5rem 0}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:.6rem 0}table{border-collapse:collapse;font-size:.88rem;
font-variant-numeric:tabular-nums}
th,td{padding:.22rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:middle}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom}.n{text-align:right}
td.n,tbody td:first-child{white-space:nowrap}
.confusion td{text-align:center;min-width:2.8rem;padding:.2rem;
background:rgb(47 109 179/calc(var(--share)*.95));print-color-adjust:exact}
.confusion td small{display:block;line-height:1.1}.confusion .none{color:var(--soft);opacity:.55}
.confusion .deep,.confusion .deep small{color:#fff}
.confusion tbody th{white-space:nowrap;font-weight:500}
.confusion .turned{text-align:center;font-weight:500;padding:.2rem}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr));gap:.7rem}
.maps{grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));margin-bottom:.7rem}
.cards{grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));font-size:.88rem}
.cards .panel{display:flex;gap:.7rem;overflow-wrap:anywhere}.cards img{flex:none}
.beside{display:flex;flex-wrap:wrap;gap:.7rem 2.5rem;align-items:flex-start}.beside>.wide{max-width:100%}
.beside>.panel{flex:0 1 24rem}.stack{display:grid;gap:.7rem;flex:1 1 20rem;max-width:32rem}
figure{margin:0}.panel,.played{background:var(--card);border:1px solid var(--line);border-radius:.5rem;
padding:.5rem .6rem;break-inside:avoid}
.panel svg{display:block;width:100%;height:auto;touch-action:pan-y}.panel figcaption{font-size:.87rem;font-weight:600}
.panel figcaption small{font-weight:400;margin-left:.4rem}
.plays{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,30rem),1fr));gap:.7rem}
.wide-image{width:100%;height:auto;border-radius:.3rem}.played figcaption{font-size:.87rem}
.thumb{height:64px;width:auto;border-radius:.25rem;display:block}
.query{display:flex;flex-wrap:wrap;align-items:center;gap:.6rem;margin:.5rem 0}
.query figure{font-size:.78rem;max-width:8.5rem;overflow-wrap:anywhere}
.query .right .thumb{outline:3px solid var(--good)}.query .right figcaption{color:var(--good)}
.query .wrong .thumb{outline:2px solid var(--bad)}.query .wrong figcaption{color:var(--bad)}
.legend span{margin-right:.9rem;white-space:nowrap}.legend i,figcaption i{display:inline-block;width:.7rem;
height:.7rem;border-radius:50%;margin-right:.3rem;vertical-align:-.05rem}
figcaption span{margin-right:.5rem;white-space:nowrap}
.grid{stroke:var(--line);stroke-width:.7}.axis{stroke:var(--soft);stroke-width:.8}.mean{stroke:var(--warn);
stroke-width:2}.ideal{stroke:var(--soft);stroke-dasharray:4 3}.tick{fill:var(--soft);font-size:10px}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}.faint{opacity:.65}
.pointer line{stroke:var(--soft);stroke-width:.7}.pointer text{fill:var(--ink);font-size:11px;paint-order:stroke;
stroke:var(--card);stroke-width:4px}
details summary{cursor:pointer;color:var(--accent);margin:.5rem 0}
pre{background:var(--card);border:1px solid var(--line);border-radius:.4rem;padding:.7rem;overflow-x:auto;
font-size:.8rem;line-height:1.4}
footer{margin-top:3rem;color:var(--soft);font-size:.85rem}
@media (max-width:34rem){.maps{grid-template-columns:1fr 1fr}.panel figcaption small{display:block;margin:0}}
@media print{body{max-width:none;font-size:11px}nav,.pointer{display:none}h2{break-after:avoid}
.plays,.panels{grid-template-columns:repeat(3,1fr)}.plays{grid-template-columns:repeat(2,1fr)}
.maps{grid-template-columns:repeat(4,1fr)}}
"""

STYLE += f".others{{fill:{OTHERS};background:{OTHERS};opacity:.45}}\n" + "".join(
    f".k{number}{{fill:{colour};background:{colour}}}.s{number}{{stroke:{colour}}}\n"
    for number, colour in enumerate(COLOURS)
)

SCRIPT = """
for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const lines = JSON.parse(svg.dataset.lines);
  const [left, right, low, high, x0, x1, y0, y1] = JSON.parse(svg.dataset.scale);
  const pointer = svg.querySelector(".pointer"), space = "http://www.w3.org/2000/svg";
  const add = (name, values, text) => {
    const node = document.createElementNS(space, name);
    for (const key in values) node.setAttribute(key, values[key]);
    if (text !== undefined) node.textContent = text;
    pointer.appendChild(node);
  };
  svg.addEventListener("pointerleave", () => pointer.replaceChildren());
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = left + (at - x0) / (x1 - x0) * (right - left);
    pointer.replaceChildren();
    lines.forEach(([name, points], number) => {
      let best = null;
      for (const point of points)
        if (point[1] !== null && (!best || Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted))) best = point;
      if (!best) return;
      const x = x0 + (best[0] - left) / (right - left) * (x1 - x0);
      const y = y1 - (best[1] - low) / (high - low) * (y1 - y0);
      if (number === 0) add("line", {x1: x, x2: x, y1: y0, y2: y1});
      add("circle", {cx: x, cy: y, r: 3.5, class: "k" + number % 10});
      const side = x > (x0 + x1) / 2 ? {x: x - 7, "text-anchor": "end"} : {x: x + 7};
      const named = lines.length > 1 ? name + " " : "";
      add("text", {...side, y: Math.min(Math.max(y - 6, y0 + 10), y1 - 4)},
          named + best[1] + " at " + svg.dataset.unit + " " + best[0]);
    });
  });
}
"""
