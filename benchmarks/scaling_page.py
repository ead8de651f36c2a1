"""The estimate of ``benchmarks.scaling`` as a page of the documentation and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.communication import WAYS


def page(result: dict[str, Any]) -> str:
    """The whole page."""
    given, gpus = result["assumptions"], 64
    networks = [one["name"] for one in result["networks"]]
    first = result["networks"][0]["name"]
    measured = ", ".join(f"{name} {rate:g}" for name, rate in result["measured_clips_per_s"].items())
    speed = f"measured clips/s of one GPU ({measured})" if measured else (
        f"an assumed {100 * given['peak_share']:g}% of an assumed {given['peak_tflops']:g} TFLOP/s"
    )  # fmt: skip
    links = "; ".join(f"{n['machine_gb_s']:g} GB/s ({n['name']})" for n in result["networks"])
    machine, models = given["gpus_per_machine"], " and ".join(dict.fromkeys(row["preset"] for row in result["check"]))
    wait, spare = 100 * result["data_wait"], 100 * result["headroom"] - 100
    return f"""# How pre-training scales: an estimate

`{result["command"]}`, {result["date"]}, torch {result["torch"]}.

**Nothing here but the bytes is measured.** They follow from the model, and two processes counted them (below). The rest
is arithmetic with these assumptions, each of them an option of the command; put in what was measured on your machines:

- step time: {speed}; forward and backward as three forward passes;
- a GPU sends {given["inside_gb_s"]:g} GB/s within its machine of {machine};
  a machine sends, over all its links, {links};
- rings: n ranks send 2 (n - 1) / n of a sum and (n - 1) / n of what is gathered or scattered, and the slowest link
  decides; a collective costs {given["call_us"]:g} us before it sends;
- sending hides behind {100 * given["overlap"]:g}% of the backward pass (DDP), or of both passes (sharded); features,
  for global negatives, hide behind nothing.

Efficiency is the step time of one GPU over that of n, each with the same number of clips.

{_table(result, networks, first, gpus)}

![Efficiency against the number of GPUs](scaling.png)

What follows, if the assumptions hold: weights and gradients cost the same whatever the batch, so a larger batch a GPU
helps most, and then a machine's links. One link of 100 Gb/s for eight GPUs is too little at any batch shown. Features
grow with the batch *and* the number of GPUs; with `negatives: local`, the paper's, none are sent.

## Bytes, by formula and counted

One step of {models} with global negatives, 2 clips a rank, two processes with gloo on a processor. Bytes are those of
the whole tensors.

{_check(result["check"])}

## Feeding the GPUs

Cores that decode for one GPU so that it waits for data less than {wait:g}% of the time, at the clips/s of the smallest
batch above, with the rates of one core from [Speed of the data](data.md) and {spare:.0f}% more for uneven clips; and
what a machine of {machine} reads from disk or network. With shards behind URLs every machine downloads every shard
([why](../remote.md#the-cache)): its rate then is that of all machines together, until its cache holds the data set.

{_data(result["data"])}
"""


def _table(result: dict[str, Any], networks: list[str], first: str, gpus: int) -> str:
    inside = result["assumptions"]["gpus_per_machine"]
    head = ["model", "clips a GPU", "way", "step, ms", f"MB sent, {gpus} GPUs", "of it features", f"{inside} GPUs",
            *(f"{gpus} GPUs, {name}" for name in networks)]  # fmt: skip
    lines = []
    for row in result["rows"]:
        sent = row["sent_mb"]
        inner = row["efficiency"][first][inside]
        outer = [row["efficiency"][name][gpus] for name in networks]
        cells = [row["preset"], row["batch"], WAYS[row["way"]], f"{row['step_ms']:.0f}", f"{sum(sent.values()):.0f}",
                 f"{sent['features']:.0f}",
                 *(f"{100 * value:.0f}%" for value in [inner, *outer])]  # fmt: skip
        lines.append(cells)
    sizes = {row["preset"]: row for row in result["rows"]}.values()
    about = "; ".join(
        f"{row['preset']} has {row['parameters'] / 1e6:.1f} M parameters and {row['macs'] / 1e9:.2f} GMAC a clip and "
        "forward pass" for row in sizes
    )  # fmt: skip
    return f"{_markdown(head, lines)}\n\nCounted from the configuration: {about}."


def _check(rows: list[dict[str, Any]]) -> str:
    head = ["model", "way", "collective", "calls, formula", "calls, counted", "bytes, formula", "bytes, counted"]
    lines = []
    for row in rows:
        formula, counted = row["formula"], row["counted"] or {"calls": "-", "bytes": "-"}
        lines.append([row["preset"], WAYS[row["way"]], f"{formula['kind']} of {formula['what']}", formula["calls"],
                      counted["calls"], formula["bytes"], counted["bytes"]])  # fmt: skip
    return _markdown(head, lines)


def _data(rows: list[dict[str, Any]]) -> str:
    head = ["model", "clips/s a GPU", "shards", "clips/s a core", "cores a GPU", "MB/s a machine"]
    lines = [[row["preset"], f"{row['clips_per_s']:.0f}", row["format"], f"{row['core_clips_per_s']:.0f}",
              row["cores_per_gpu"], f"{row['machine_mb_s']:.0f}"] for row in rows]  # fmt: skip
    return _markdown(head, lines)


def _markdown(head: list[str], lines: list[list[Any]]) -> str:
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in cells)


def figure(result: dict[str, Any], path: Path) -> None:
    """Efficiency against GPUs: a panel for each model and batch, a colour for each network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ways = {"ddp": "-", "sharded_bf16": "--"}
    panels = list(dict.fromkeys((row["preset"], row["batch"]) for row in result["rows"]))
    chart, grid = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3.4), layout="constrained", sharey=True,
                               squeeze=False)  # fmt: skip
    for axes, (preset, batch) in zip(grid[0], panels, strict=True):
        for row in result["rows"]:
            if (row["preset"], row["batch"]) != (preset, batch) or row["way"] not in ways:
                continue
            for number, (name, values) in enumerate(row["efficiency"].items()):
                label = f"{name}, {WAYS[row['way']].split(',')[0]}"
                axes.plot([int(n) for n in values], [100 * v for v in values.values()], ways[row["way"]],
                          color=f"C{number}", label=label)  # fmt: skip
        axes.set_title(f"{preset}, {batch} clips a GPU", fontsize=10)
        axes.set_xscale("log", base=2)
        axes.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
        axes.set_xlabel("GPUs")
        axes.set_ylim(0, 105)
        axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylabel("efficiency, % (estimate)")
    grid[0][-1].legend(fontsize=7, frameon=False)
    chart.savefig(path, dpi=150)
    plt.close(chart)
