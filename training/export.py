"""Write a model as ONNX: `python training/export.py MODEL --onnx FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import parse


@dataclass(frozen=True)
class Export:
    """Write a model's network as ONNX, and the numbers of the loop around it as JSON (docs/serving.md#out-of-genlab)."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run, folder, shipped name, or user/name on the Hub."""
    onnx: Path
    """File to write, NAME.onnx; NAME.json comes beside it."""

    def __post_init__(self) -> None:
        if self.onnx.suffix != ".onnx":
            raise ValueError(f"--onnx: expected a name that ends in .onnx, got {self.onnx}")


def main() -> int:
    """Run the command line; return the exit status, 1 for an error that the message explains."""
    config = parse(Export)
    import genlab
    from genlab.package import ModelError
    from training.conversion import export_onnx

    try:
        for file in export_onnx(genlab.load(config.model), config.onnx):
            print(f"written: {file}")
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
