"""Compile the forward pass of a DDPM, without gradients, for this machine: ahead of time, by inductor, in a process of its own.

Compiling takes a core one to two minutes and needs a C++ compiler, so it runs in the background: `start` returns at once. A
network uses its compiled code as soon as that exists and its output has been compared with the network's own (`TOLERANCE`). If
compiling fails, the network continues uncompiled.

The code computes in the precision of drawing (`nn.drawing_precision`): bf16 on a CPU with bf16 instructions. Likelihoods,
always fp32, then run uncompiled. torch's loader holds the GIL while compiled code runs (pytorch issue 197516), so that requests
do not overlap (`benchmarks/README.md`, section 5).
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from genlab import hub
from genlab.ddpm import DDPM
from genlab.nn import computes_bf16, drawing_precision
from genlab.package import Package

log = logging.getLogger("genlab.compiled")

SECONDS = 1800.0
"""Time limit for compiling one network."""
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest difference between the output of the compiled code and of the network, relative to the largest output, by precision.
bf16 has 8 significant bits, and compiled code rounds at other places."""
COUNTS = (1, 2, 16)
"""Batch sizes at which compiled code is compared with the network before it is used."""


def compile_network(model: DDPM, package: Path) -> None:
    """Compile `model.network` with its weights for any batch size; write the code to `package` (.pt2)."""
    with drawing_precision():
        compile_module(_Network(model.requires_grad_(False)), _example(model, 2), package)


def compile_module(module: nn.Module, example: tuple[Tensor | None, ...], package: Path) -> None:
    """Compile a module for this machine's CPU, any batch size, no gradients, in the precision of the enclosing autocast.

    Args:
        example: arguments of the module, for a batch of two pictures or more.
        package: the file to write (.pt2), for `torch._inductor.aoti_load_package`.
    """
    from torch import _inductor as inductor
    from torch.export import Dim, export

    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shapes = tuple(None if each is None else {0: Dim("pictures", min=1, max=2**16)} for each in example)
    with torch.no_grad():
        module(*example)  # fills caches, such as a schedule's tables, which must not be traced
        exported = export(module, example, dynamic_shapes=shapes)
    inductor.aoti_compile_and_package(exported, package_path=str(package))


def use(model: DDPM, package: Path) -> None:
    """Make `model.network` use compiled code for float32 input in `drawing_precision` without gradients.

    Args:
        package: written by `compile_network` for this model on this machine. Loading runs its code: never load another one.

    Raises:
        ValueError: the output of the compiled code differs from that of the network by more than `TOLERANCE`.
    """
    from torch import _inductor as inductor

    own, run, classes = model.network, inductor.aoti_load_package(str(package)), bool(model.data.classes)
    bf16 = computes_bf16()
    tolerance = TOLERANCE["bf16" if bf16 else "fp32"]

    def network(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() or x_t.dtype != torch.float32 or torch.is_autocast_enabled("cpu") != bf16:
            return own(x_t, t, label)
        label = torch.full_like(t, -1) if label is None else label
        # Compiled code ignores strides: it reads memory as contiguous.
        return run(*(each.contiguous() for each in ((x_t, t, label) if classes else (x_t, t))))

    with torch.no_grad(), drawing_precision():
        for count in COUNTS:
            example = _example(model, count)
            expected, got = own(*example), network(*example)
            difference = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
            if not difference <= tolerance:
                raise ValueError(
                    f"expected compiled code within {tolerance:g} of the network for {count} pictures, got {difference:.3g} off"
                )
    model.network = network  # type: ignore[method-assign]


def start(packages: Sequence[Package]) -> threading.Thread:
    """Compile the networks of the DDPMs among these models, one by one, and use the code; return the background thread."""
    models = [(package, package.model) for package in packages if isinstance(package.model, DDPM)]
    thread = threading.Thread(target=_all, args=(models,), name="compile", daemon=True)
    thread.start()
    return thread


def _all(models: Sequence[tuple[Package, DDPM]]) -> None:
    for source, model in models:
        name = Path(source.source).name
        try:
            with tempfile.TemporaryDirectory(prefix="genlab-compiled-") as work:
                package = Path(work) / "unet.pt2"
                _in_process(source.folder, package)
                use(model, package)
        except Exception as error:  # whatever failed, the model continues uncompiled
            log.warning("%s continues without being compiled: %s", name, error)
        else:
            log.info("%s is compiled", name)


def _in_process(folder: Path, package: Path) -> None:
    """Run `compile_network` in a process of the lowest priority, which is killed when this process ends.

    Raises:
        RuntimeError: it failed, or took longer than `SECONDS`.
    """
    root = str(Path(__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "genlab.compiled", str(folder.resolve()), str(package)],
        cwd=root,
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(package.parent / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    atexit.register(end)
    try:
        _, messages = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"compiling took longer than {SECONDS:g} seconds") from None
    finally:
        end()
        atexit.unregister(end)
        process.communicate()  # reaps the process, and closes the pipe after a timeout
    if process.returncode:
        raise RuntimeError(
            next((line for line in reversed(messages.splitlines()) if line.strip()), f"exit {process.returncode}")
        )


class _Network(nn.Module):
    """`model.network` as a module: `torch.export` takes no methods."""

    def __init__(self, model: DDPM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return self.model.network(x_t, t, label)


def _example(model: DDPM, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return arguments of a network: x_t (B C H W), t (B) and labels (B), −1 for no label; None for a model without classes."""
    data = model.data
    x = torch.randn(count, *data.shape, generator=torch.Generator().manual_seed(count))
    t = torch.linspace(model.schedule.T, 1, count).long()
    return x, t, torch.arange(count) % (len(data.classes) + 1) - 1 if data.classes else None


def main() -> None:
    """Compile the model in FOLDER to the file PACKAGE: the command line of the background process."""
    if hasattr(os, "nice"):
        os.nice(19)
    folder, package = map(Path, sys.argv[1:])
    try:
        compile_network(hub.read(folder).model, package)  # type: ignore[arg-type]
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.exit(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")


if __name__ == "__main__":
    main()
