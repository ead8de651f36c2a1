"""How the page looks, and the script that ties the timeline to the player. Nothing in it comes from elsewhere."""

from __future__ import annotations

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif")

CSS = """
.gradio-container { max-width: 1320px !important; width: 100% !important; margin: 0 auto !important; }
.about { line-height: 1.5; }
.about p { opacity: .8; margin: 0; }
.about h1 { margin: .3rem 0 .5rem; }
.hint { border: 1.5px dashed #8888; border-radius: 10px; padding: 9.4rem 1rem; text-align: center; }
.progress { display: flex; align-items: center; gap: .9rem; font-variant-numeric: tabular-nums; min-height: 2.9rem; }
.progress .track { flex: 1; }
.problem { border-left: 5px solid #c0392b; background: #c0392b18; border-radius: 6px; padding: .8rem 1rem;
           line-height: 1.5; overflow-wrap: anywhere; }
.problem.stopped { border-color: #888; background: #8882; }
.verdict { display: flex; align-items: baseline; flex-wrap: wrap; gap: .2rem .6rem; min-height: 2.9rem;
           font-variant-numeric: tabular-nums; }
.verdict #label { font-size: 1.9rem; font-weight: 650; }
.verdict .value { margin-left: .9rem; }
.verdict .facts { margin-left: auto; opacity: .7; font-size: .88rem; }
.warning { border-left: 5px solid #d9a400; background: #d9a40018; border-radius: 6px; padding: .5rem .9rem;
           margin-bottom: .5rem; line-height: 1.45; overflow-wrap: anywhere; }
.bars { margin: .3rem 0 .2rem; }
.bar { display: grid; grid-template-columns: minmax(4.5rem, 8rem) 1fr 3.4rem; gap: .7rem; align-items: center;
       font-size: .9rem; line-height: 1.55; }
.bar .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.track { background: #8882; border-radius: 4px; height: .65rem; overflow: hidden; }
.fill { display: block; height: 100%; background: #4477aa; border-radius: 4px; }
.bar .number { text-align: right; font-variant-numeric: tabular-nums; }
.downloads { display: flex; gap: .6rem; margin-top: .8rem; flex-wrap: wrap; }
.download { border: 1px solid #8886; border-radius: 7px; padding: .3rem .8rem; font-size: .9rem;
            text-decoration: none !important; color: var(--body-text-color) !important; }
.download::before { content: "\\2913"; margin-right: .45rem; }
.download:hover { background: #4477aa22; }
.timeline { position: relative; background: white; border-radius: 10px; overflow: hidden; cursor: pointer;
            border: 1px solid #8884; }
.timeline img { display: block; width: 100%; }
.timeline .now { position: absolute; top: 0; bottom: 0; width: 2px; background: #c0392b; pointer-events: none;
                 display: none; }
/* Its letters would be too small for a phone. */
@media (max-width: 700px) { #line { overflow-x: auto !important; } .timeline { width: 720px; } }
/* Cutting would fetch ffmpeg from another host. */
#player button[aria-label*="rim"] { display: none; }
"""

SCRIPT = """
<script>
(() => {
  const player = () => document.querySelector("#player video");
  const number = (line, name) => parseFloat(line.dataset[name]);
  const follow = () => {
    const line = document.querySelector(".timeline"), video = player();
    if (!line) return;
    const mark = line.querySelector(".now"), begin = number(line, "begin"), end = number(line, "end");
    const time = video ? video.currentTime : NaN;
    const inside = time >= begin && time <= end;
    mark.style.display = inside ? "block" : "none";
    if (!inside) return;
    const left = number(line, "left"), right = number(line, "right");
    mark.style.left = 100 * (left + (right - left) * (time - begin) / (end - begin)) + "%";
  };
  setInterval(follow, 80);
  document.addEventListener("click", (event) => {
    const line = event.target.closest(".timeline"), video = player();
    if (!line || !video) return;
    const box = line.getBoundingClientRect(), left = number(line, "left"), right = number(line, "right");
    const place = ((event.clientX - box.left) / box.width - left) / (right - left);
    const begin = number(line, "begin"), end = number(line, "end");
    video.currentTime = begin + Math.min(1, Math.max(0, place)) * (end - begin);
    follow();
  });
})();
</script>
"""
