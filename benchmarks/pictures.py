"""Measure how pictures of files are read, in seconds and memory: `python benchmarks/pictures.py --help`.

Draws JPEG files, each another picture, decodes them into the cache, reads them again, and takes random batches, each in a
process of its own. Memory is what a process has to itself: what it maps from the cache can be dropped and read again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Options:
    """Measure reading a folder of pictures through the cache and without it."""

    count: int = 100_000
    """Pictures."""
    size: int = 256
    """Their side, pixels, also that of the model."""
    batches: int = 100
    """Batches of 64 pictures to take."""
    uncached: bool = False
    """Also read them into memory, without the cache."""
    folder: Path | None = None
    """Folder for pictures and cache, of which pictures are kept; by default a temporary one."""
    quick: bool = False
    """A trial run in seconds: 200 pictures of 32 pixels."""


def draw(folder: Path, count: int, size: int) -> None:
    """Write pictures that are not there yet: 8×8 random colours, enlarged."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        path = folder / f"{i:06}.jpg"
        if not path.exists():
            colours = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


READ = """
import json, sys, time
import psutil, torch
from genlab.config import Reading
from genlab.data import load_both
folder, size, cache, batches = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
process = psutil.Process()
def own():
    memory = process.memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) / 1e6
before, start = own(), time.perf_counter()
train, test = load_both(folder, size=size, channels=3, reading=Reading(cache=cache))
seconds, most = time.perf_counter() - start, own()
generator = torch.Generator().manual_seed(0)
start = time.perf_counter()
for _ in range(batches):
    train.images[torch.randint(len(train), (64,), generator=generator)].float().mean()
    most = max(most, own())
batch = (time.perf_counter() - start) / batches
print(json.dumps({"seconds": seconds, "ms_a_batch": 1000 * batch, "before_mb": before, "most_mb": most}))
"""


def read(folder: Path, size: int, cache: str, batches: int) -> dict[str, float]:
    """Return what a process measured that read the pictures."""
    command = [sys.executable, "-c", READ, str(folder), str(size), cache, str(batches)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(options: Options) -> None:
    """Print the table."""
    count, size, batches = (200, 32, 3) if options.quick else (options.count, options.size, options.batches)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        start = time.perf_counter()
        draw(root / "pictures", count, size)
        drawn = time.perf_counter() - start
        ways = {"first start": str(root / "cache"), "second start": str(root / "cache")}
        ways |= {"without the cache": "off"} if options.uncached else {}
        print(f"{count:,} JPEG files of {size}×{size} (drawn in {drawn:.0f} s), {count * 3 * size**2 / 1e6:,.0f} MB decoded\n")
        print("| | seconds until they are there | ms a batch of 64 | own MB before | own MB at most |\n|---|---|---|---|---|")
        for name, cache in ways.items():
            found = read(root / "pictures", size, cache, batches)
            cells = (found["seconds"], found["ms_a_batch"], found["before_mb"], found["most_mb"])
            print(f"| {name} | " + " | ".join(f"{cell:,.1f}" for cell in cells) + " |", flush=True)


if __name__ == "__main__":
    run(tyro.cli(Options, config=(tyro.conf.FlagCreatePairsOff,)))
