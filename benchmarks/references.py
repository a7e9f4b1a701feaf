"""Measure simple codes and models on the same test pictures, in bits/dim, to compare with the bounds.

    python benchmarks/references.py --dataset mnist --pixelcnn-steps 4000

    uniform     every gray level equally likely: 8 bits
    histogram   frequencies of gray levels at each pixel position in the training pictures, add-one smoothed
    PNG, WebP   one lossless file for each picture, with its header
    Gaussian    N(m, C) fitted to the training pictures with uniform noise of one level, exact density, one draw of noise a
                picture: −log₂ is an upper bound on the bits of the Gaussian's discretised probability (Theis et al. 2016)
    PixelCNN    a small gated one (`pixelcnn.py`), exact

Prints a Markdown table: mean bits per dimension over the test pictures ± standard error.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.pixelcnn import PixelCNN
from genlab import data
from genlab.config import EMOJI, KNOWN
from genlab.listing import DataError

LEVELS = 256


def histogram_bits(train: Tensor, test: Tensor) -> Tensor:
    """Return bits per picture (N) of test (N …) uint8 by frequencies of levels at each position, add-one smoothed."""
    positions = train.flatten(1).shape[1]
    counts = torch.ones(positions, LEVELS, dtype=torch.float64)
    index = train.flatten(1).T.long()
    counts.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
    bits = -(counts / counts.sum(dim=1, keepdim=True)).log2()
    return bits.gather(1, test.flatten(1).T.long()).sum(dim=0)


def gaussian_bits(train: Tensor, test: Tensor, generator: torch.Generator) -> Tensor:
    """Return bits per picture (N), −log₂ N(v + u; m, C) in units of one gray level, u ~ U[0, 1) for every pixel.

    m and C are exact for the training pictures with that noise: mean + 1/2, covariance + I/12.
    """
    known = train.flatten(1).double()
    mean = known.mean(dim=0)
    covariance = (known - mean).T @ (known - mean) / len(known)
    covariance.diagonal().add_(1 / 12)
    root = torch.linalg.cholesky(covariance)
    flat = test.flatten(1).double()
    centred = flat + torch.rand(flat.shape, generator=generator, dtype=torch.float64) - mean - 0.5
    whitened = torch.linalg.solve_triangular(root, centred.T, upper=False)
    log_det = 2 * root.diagonal().log().sum()
    return 0.5 * (whitened.square().sum(dim=0) + log_det + flat.shape[1] * math.log(2 * math.pi)) / math.log(2)


def file_bits(test: Tensor, kind: str) -> Tensor:
    """Return bits per picture (N): the size of a lossless file for each."""
    options: dict[str, dict[str, Any]] = {"PNG": {"optimize": True}, "WEBP": {"lossless": True, "quality": 100, "method": 6}}

    def size(picture: Tensor) -> int:
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy()).save(file, kind, **options[kind])
        return 8 * file.tell()

    return torch.tensor([size(p) for p in tqdm(test, desc=kind, mininterval=1.0, disable=None)], dtype=torch.float64)


def train_pixelcnn(net: PixelCNN, train: Tensor, steps: int, batch: int, seed: int) -> Iterator[float]:
    """Train on (N 1 H W) uint8, yielding the loss, nats per picture, after every step."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps, pct_start=0.05)
    for _ in range(steps):
        chosen = train[torch.randint(len(train), (batch,), generator=generator)]
        loss = net.nats(chosen).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1e3)
        optimiser.step()
        decay.step()
        yield float(loss.detach())


def pixelcnn_bits(train: Tensor, test: Tensor, steps: int, batch: int, seed: int) -> Tensor:
    """Train a PixelCNN and return its bits per picture (N)."""
    torch.manual_seed(seed)
    net = PixelCNN()
    bar = tqdm(train_pixelcnn(net, train, steps, batch, seed), total=steps, desc="PixelCNN", mininterval=1.0, disable=None)
    per_dim = math.log(2) * math.prod(test.shape[1:])
    start = time.monotonic()
    for i, loss in enumerate(bar, start=1):
        if i % 100 == 0:
            rate = i * batch / (time.monotonic() - start)
            tqdm.write(f"PixelCNN step {i} of {steps}: {loss / per_dim:.3f} bits/dim on a batch, {rate:.0f} pictures/s")
    with torch.inference_mode():
        return torch.cat([net.nats(part).double() for part in test.split(64)]) / math.log(2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Bits/dim of simple codes and models on a data set's test pictures.")
    parser.add_argument("--dataset", default="fashion-mnist", choices=sorted([*KNOWN, EMOJI]))
    parser.add_argument("--data-dir", help="folder with the IDX files")
    parser.add_argument("--images", type=int, default=10_000, help="test pictures, the first ones")
    parser.add_argument("--pixelcnn-steps", type=int, default=4000, help="training steps of the PixelCNN; 0 skips it")
    parser.add_argument("--batch-size", type=int, default=32, help="pictures a step of the PixelCNN")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    options = parser.parse_args()
    try:
        train = data.load(options.dataset, "train", options.data_dir)
        test = data.load(options.dataset, "test", options.data_dir)
    except DataError as error:
        sys.exit(f"error: {error}")
    if options.pixelcnn_steps and test.spec.channels != 1:
        sys.exit(f"error: the PixelCNN reads gray pictures, got RGB ones of {options.dataset}: give --pixelcnn-steps 0")
    pixels = test.images[: options.images]
    generator = torch.Generator().manual_seed(options.seed)
    rows = {
        "uniform": torch.full((len(pixels),), 8.0 * test.spec.dims, dtype=torch.float64),
        "histogram of each pixel": histogram_bits(train.images, pixels),
        "PNG": file_bits(pixels, "PNG"),
        "WebP, lossless": file_bits(pixels, "WEBP"),
    }
    if len(train) > test.spec.dims:  # else its covariance is singular
        rows["Gaussian, full covariance"] = gaussian_bits(train.images, pixels, generator)
    if options.pixelcnn_steps:
        name = f"gated PixelCNN, {options.pixelcnn_steps} steps of {options.batch_size}"
        rows[name] = pixelcnn_bits(train.images, pixels, options.pixelcnn_steps, options.batch_size, options.seed)
    print(
        f"\n{test.spec.name}, {len(pixels)} test pictures, bits/dim ± standard error\n\n| code or model | bits/dim |\n|---|---|"
    )
    figures = {}
    for name, bits in rows.items():
        per_dim = bits / test.spec.dims
        figures[name] = {"bits_per_dim": float(per_dim.mean()), "standard_error": float(per_dim.std() / len(bits) ** 0.5)}
        print(f"| {name} | {figures[name]['bits_per_dim']:.3f} ± {figures[name]['standard_error']:.3f} |")
    if options.out:
        facts = {"dataset": test.spec.name, "images": len(pixels), "seed": options.seed, "data_sha256": test.sha256}
        options.out.write_text(json.dumps({**facts, "references": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
