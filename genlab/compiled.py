"""A faster forward pass of a DDPM without gradients: compiled by inductor for this machine, ahead of time, in its own process.

Compiling takes a minute or two of a core and needs a C++ compiler, so it happens beside whoever needs the network: `start`
returns at once, and each network answers with the compiled code from the moment that this is there and gives the same answers
up to rounding (`TOLERANCE`). Where anything is missing or goes wrong, the network stays as it is.

What is compiled is the network that draws: in bf16 where the CPU computes in it. There a likelihood, which is always computed
in fp32, is left to the network itself. torch's loader holds the interpreter's lock while compiled code runs (pytorch issue
197516): other visitors wait for it (`benchmarks/README.md`, section 5).
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
"""How long compiling one network may take."""
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}
"""Largest difference between the compiled network's output and its own, as a share of the largest output, by arithmetic; bf16
has 8 bits, and compiled code rounds to them at other places."""
COUNTS = (1, 2, 16)
"""Pictures at once with which compiled code is tried before it is used."""


def compile_network(model: DDPM, package: Path) -> None:
    """Compile `model.network`, weights and all, for any number of pictures at once; write the code to `package` (.pt2)."""
    with drawing_precision():
        compile_module(_Network(model.requires_grad_(False)), _example(model, 2), package)


def compile_module(module: nn.Module, example: tuple[Tensor | None, ...], package: Path) -> None:
    """Compile a module that takes tensors of as many pictures as they like, for this machine's CPU, without gradients.

    The code computes in the precision of the autocast that is on.

    Args:
        example: what it takes, for two pictures or more.
        package: the file to write (.pt2), for `torch._inductor.aoti_load_package`.
    """
    from torch import _inductor as inductor
    from torch.export import Dim, export

    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shapes = tuple(None if each is None else {0: Dim("pictures", min=1, max=2**16)} for each in example)
    with torch.no_grad():
        module(*example)  # makes what it makes once and for all, such as a schedule's tables, which tracing must not
        exported = export(module, example, dynamic_shapes=shapes)
    inductor.aoti_compile_and_package(exported, package_path=str(package))


def use(model: DDPM, package: Path) -> None:
    """Let `model.network` answer float32 pictures with compiled code, in `drawing_precision` and without a gradient.

    Args:
        package: what `compile_network` wrote for this model on this machine. It is run: never take one from anywhere else.

    Raises:
        ValueError: the compiled code's answers are not those of the network.
    """
    from torch import _inductor as inductor

    own, run, classes = model.network, inductor.aoti_load_package(str(package)), bool(model.data.classes)
    bf16 = computes_bf16()
    tolerance = TOLERANCE["bf16" if bf16 else "fp32"]

    def network(x_t: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() or x_t.dtype != torch.float32 or torch.is_autocast_enabled("cpu") != bf16:
            return own(x_t, t, label)
        label = torch.full_like(t, -1) if label is None else label
        # The code goes by the addresses alone: it does not see how a tensor is laid out.
        return run(*(each.contiguous() for each in ((x_t, t, label) if classes else (x_t, t))))

    with torch.no_grad(), drawing_precision():
        for count in COUNTS:
            example = _example(model, count)
            expected, got = own(*example), network(*example)
            miss = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
            if not miss <= tolerance:
                raise ValueError(
                    f"expected compiled code within {tolerance:g} of the network for {count} pictures, got {miss:.3g} off"
                )
    model.network = network  # type: ignore[method-assign]


def start(packages: Sequence[Package]) -> threading.Thread:
    """Compile the networks of the diffusion models among these, one after the other, in the background, and use the code."""
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
        except Exception as error:  # the model goes on as it was, whatever it is
            log.warning("%s goes on without being compiled: %s", name, error)
        else:
            log.info("%s is compiled", name)


def _in_process(folder: Path, package: Path) -> None:
    """`compile_network` in a process of its own, of the lowest priority, which ends with this one.

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
            os.killpg(process.pid, signal.SIGKILL)

    atexit.register(end)
    try:
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"compiling took longer than {SECONDS:g} seconds") from None
    finally:
        end()
        atexit.unregister(end)
        process.communicate()  # waits, and closes the pipe where the time ran out
    if process.returncode:
        raise RuntimeError(next((line for line in reversed(said.splitlines()) if line.strip()), f"exit {process.returncode}"))


class _Network(nn.Module):
    """`model.network` as a module, which is what can be exported."""

    def __init__(self, model: DDPM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return self.model.network(x_t, t, label)


def _example(model: DDPM, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a network is asked: x_t (B C H W), t (B), and classes (B), none among them, if the model knows any."""
    data = model.data
    x = torch.randn(count, *data.shape, generator=torch.Generator().manual_seed(count))
    t = torch.linspace(model.schedule.T, 1, count).long()
    return x, t, torch.arange(count) % (len(data.classes) + 1) - 1 if data.classes else None


def main() -> None:
    """In the process of its own: FOLDER PACKAGE."""
    if hasattr(os, "nice"):
        os.nice(19)
    folder, package = map(Path, sys.argv[1:])
    try:
        compile_network(hub.read(folder).model, package)  # type: ignore[arg-type]
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        sys.exit(f"{type(error).__name__}: {lines[0] if lines else 'no more is known'}")


if __name__ == "__main__":
    main()
