"""Write `report.html` of a run: one file that needs no network, with its curves, sheets and nearest training pictures."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

from training.account import recorded
from training.loop import Log

SHEETS = 12
"""Largest number of sheets of samples in a report, spread over the run."""
VIEW = '<meta name="viewport" content="width=device-width">'
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em }
body { color: #222; background: #fff }
figure { display: inline-block; max-width: 100%; margin: 0 1em 1em 0; vertical-align: top }
img { max-width: 100%; image-rendering: pixelated }
figcaption, td, th { font-size: 14px } table { display: block; overflow-x: auto } .smooth { image-rendering: auto }
td, th { text-align: right; padding: 0 .7em 0 0; font-variant-numeric: tabular-nums } .warning { color: #b35900 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } .smooth { background: #fff } .warning { color: #e69f00 }
}
"""


def write_report(folder: Path, title: str, log: Log) -> None:
    """Write the report of the run in a folder, from its log and pictures."""
    sheets = sorted((folder / "samples").glob("step-*.png"))
    shown = sheets if len(sheets) <= SHEETS else [sheets[i * (len(sheets) - 1) // (SHEETS - 1)] for i in range(SHEETS)]
    facts, measured = recorded(folder), [row for row in log.rows if "held_out" in row]
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if facts:
        epochs = f"{facts['epochs']:,.1f} epochs of {facts['images']:,} pictures, {facts['held_out']:,} held out"
        lines = [f"<li>{html.escape(line)}</li>" for line in (epochs, *facts["decisions"])]
        lines += [f'<li class="warning">Warning: {html.escape(line)}</li>' for line in facts["warnings"]]
        parts.append("<ul>" + "".join(lines) + "</ul>")
    parts += _section("Loss", [(folder / "loss.png", "training, and held out with the averaged weights")], "smooth")
    if measured:
        parts.append(_table(measured))
    parts += _section(
        "Samples over time, with the averaged weights", [(path, f"step {int(path.stem[5:]):,}") for path in shown]
    )
    last = [(sheets[-1], "averaged weights")] if sheets else []
    parts += _section("Averaged against last weights", [*last, (folder / "samples" / "raw.png", "weights of the last step")])
    told = (
        "each sample (left of a pair) with its nearest training picture by pixels (right): a model that copies has equal pairs"
    )
    parts += _section("Nearest training pictures", [(folder / "samples" / "nearest.png", told)])
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{VIEW}<title>{html.escape(title)}</title><style>{STYLE}</style>'
    )
    (folder / "report.html").write_text(page + "\n".join(parts) + "</html>\n", encoding="utf-8")


def _section(title: str, pictures: list[tuple[Path, str]], style: str = "") -> list[str]:
    """Return a heading and the pictures that exist, each with its caption; nothing if none does."""
    found = [(path, caption) for path, caption in pictures if path.is_file()]
    figures = [
        f'<figure><img class="{style}" alt="{html.escape(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode(path.read_bytes()).decode()}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        for path, caption in found
    ]
    return [f"<h2>{html.escape(title)}</h2>", *figures] if found else []


def _table(measured: list[dict[str, Any]]) -> str:
    """Return the held-out losses as a table, the lowest marked."""
    names = list(measured[0]["held_out"])
    lowest = min(row["held_out"]["loss"] for row in measured)
    rows = []
    for row in measured:
        cells = [f"{row['step']:,}", *(f"{row['held_out'].get(name, float('nan')):.5g}" for name in names)]
        mark = " <b>lowest</b>" if row["held_out"]["loss"] == lowest else ""
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"<td>{mark}</td></tr>")
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("step", *names, ""))
    return f"<h2>Held out</h2><table><tr>{head}</tr>{''.join(rows)}</table>"
