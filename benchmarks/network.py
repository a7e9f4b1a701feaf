"""Compare the forward pass of the network with those of diffusers and lucidrains: `python benchmarks/network.py --help`.

All networks have the same number of floating-point operations a picture, as nearly as their widths allow (two for a
multiply-add, as `torch.utils.flop_counter` counts convolutions and matrix products), and the same number of output channels.
The peers have random weights, which take as long as trained ones, and are built in two ways:

    as documented   the input is the picture, 28×28, as in their training examples
    folded          the input has blocks of 2×2 pixels as channels, as in our network after its first line

Shares of peak are relative to the fastest of a few 3×3 convolutions of the same precision and layout in this run.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a script: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

if TYPE_CHECKING:
    from torch import Tensor, nn

    from genlab.ddpm import DDPM

CONVOLVED = 16
"""Batch size at which convolutions are measured."""
CONVOLUTIONS = ((64, 14), (96, 14), (128, 14), (256, 14), (128, 28))
"""Channels, in and out, and sides of the convolutions that measure the machine's peak."""
WIDEST = 256
"""Peers have fewer channels than this at their finest level."""
KINDS = {
    "convolutions": ("conv",),
    "linear layers": ("linear", "addmm"),
    "attention": ("scaled_dot_product",),
    "normalisation and SiLU": ("norm", "silu"),
    "compiled code: normalisation, SiLU, sums, concatenations, linear layers, attention": ("forward, compiled",),
    "the rest": ("",),
}
"""Kind of work of a forward pass → parts of the names of its operators in torch's profiler."""


@dataclass(frozen=True)
class Options:
    """Measure pictures a second of one forward pass, and of networks of the same cost from diffusers and lucidrains."""

    model: str = "ddpm-fashion-mnist"
    """A run or model folder, the name of a model that ships, or user/name[@revision] on the Hub."""
    batches: tuple[int, ...] = (1, 16, 64)
    """Batch sizes."""
    rounds: int = 30
    """Passes of each network, of which the median is reported."""
    threads: int | None = None
    """CPU threads; by default torch's choice."""
    compile: bool = False
    """Also measure every network compiled by inductor as with `app.py --compile`: some minutes more for each."""
    profile: bool = False
    """Profile our forward pass, instead of the comparison."""
    quick: bool = False
    """A trial run in seconds: batches of 1 and 4, 3 rounds."""


@dataclass(frozen=True)
class Network:
    """A network in one precision and layout: its forward pass, operations a picture, and owner."""

    forward: Callable[[Tensor, Tensor], Any]
    flops: float
    owner: str
    side: int
    channels: int
    precision: str
    layout: str

    @property
    def best(self) -> tuple[str, str]:
        """Return precision and layout of the convolutions to compare with; compiled code uses channels_last."""
        return self.precision, "channels_last" if self.layout == "compiled" else self.layout


def shipped_model(name: str) -> DDPM:
    """Read a DDPM by the name of one that ships, its folder, or its Hub id.

    Raises:
        SystemExit: it is not a DDPM.
    """
    from genlab import hub
    from genlab.ddpm import DDPM

    model = hub.read(name).model
    if not isinstance(model, DDPM):
        raise SystemExit(f"--model: expected a DDPM, got a {model.kind}")
    return model


def flops(network: Callable[[Tensor, Tensor], object], x: Tensor) -> float:
    """Return the floating-point operations of one forward pass of x (1 C H W); on the device "meta" nothing is computed.

    Attention is computed as matrix products here, since the counter does not support the CPU's own kernel.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(x, torch.ones(1, dtype=torch.long, device=x.device))
    return float(counter.get_total_flops())


def our_flops(model: DDPM) -> float:
    """Return the floating-point operations of our forward pass a picture."""
    import torch

    return flops(model.predict, torch.zeros(1, *model.data.shape))


Family = Iterator[tuple[str, "Callable[[], nn.Module]"]]
"""Networks of rising cost: the description of each, and its constructor."""


def diffusers_unets(channels: int, outputs: int, side: int, levels: int) -> Iterator[Family]:
    """Yield `UNet2DModel`s of every width, as documented: channels double after the first level, the last but one attends."""
    from diffusers import UNet2DModel

    down = ["DownBlock2D"] * levels
    down[max(levels - 2, 1)] = "AttnDownBlock2D"
    up = [kind.replace("Down", "Up") for kind in down[::-1]]

    def family(layers: int) -> Family:
        for width in range(8, WIDEST, 8):
            widths = (width, *[2 * width] * (levels - 1))
            yield (
                f"block_out_channels={widths}, layers_per_block={layers}",
                partial(
                    UNet2DModel,
                    sample_size=side,
                    in_channels=channels,
                    out_channels=outputs,
                    layers_per_block=layers,
                    block_out_channels=widths,
                    down_block_types=tuple(down),
                    up_block_types=tuple(up),
                    norm_num_groups=8,
                ),
            )

    yield from (family(2), family(1))


def lucidrains_unets(channels: int, outputs: int, side: int, levels: int) -> Iterator[Family]:
    """Yield `Unet`s of every width, with the first of the documented multiples."""
    from denoising_diffusion_pytorch import Unet

    multiples = (1, 2, 4, 8)[:levels]
    yield (
        (
            f"dim={width}, dim_mults={multiples}",
            partial(Unet, dim=width, dim_mults=multiples, channels=channels, out_dim=outputs),
        )
        for width in range(8, WIDEST, 4)
    )


def mend_torchvision() -> None:
    """Make torchvision importable, which both peers import if it is installed, with a torch that it was not built for.

    With a torch for the CPU, a torchvision for CUDA lacks its operators, and importing it fails where it registers their
    shapes. Declaring the two that it always registers is enough: the networks use none of them.
    """
    from importlib.util import find_spec

    import torch

    if find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def nearest(
    families: Iterable[Iterable[tuple[str, Callable[[], nn.Module]]]], channels: int, side: int, wanted: float
) -> tuple[str, nn.Module, float]:
    """Return the network with a cost nearest to `wanted` operations a picture: description, network, operations.

    Args:
        families: networks of rising cost; of each, those after the first above `wanted` are skipped.
    """
    import torch

    found = []
    for family in families:
        for name, make in family:
            with torch.device("meta"):
                cost = flops(make(), torch.empty(1, channels, side, side))
            found.append((abs(cost - wanted), name, make, cost))
            if cost > wanted:
                break
    _, name, make, cost = min(found, key=lambda each: each[0])
    return name, make().eval(), cost


def same_cost(model: DDPM, make: Callable[..., Iterator[Family]]) -> tuple[str, nn.Module]:
    """Return a peer's network, as documented, with a cost nearest to that of ours: description, network."""
    data = model.data
    levels = len(model.config.unet.multipliers) + (model.config.unet.patch > 1)
    families = make(data.channels, data.channels, data.size, levels)
    made, network, _ = nearest(families, data.channels, data.size, our_flops(model))
    return made, network


def peers(model: DDPM) -> dict[str, tuple[nn.Module, float, int, int]]:
    """Return the installed peers by description: network, operations, channels and side of its input."""
    from importlib.util import find_spec

    mend_torchvision()
    data, patch = model.data, model.config.unet.patch
    outputs = data.channels * (2 if model.config.variance == "learned" else 1)
    wanted = our_flops(model)
    levels = len(model.config.unet.multipliers)
    found: dict[str, tuple[nn.Module, float, int, int]] = {}
    for owner, package, make in (
        ("diffusers UNet2DModel", "diffusers", diffusers_unets),
        ("lucidrains Unet", "denoising_diffusion_pytorch", lucidrains_unets),
    ):
        if find_spec(package) is None:
            continue
        for fold in (1, patch) if patch > 1 else (1,):
            channels, side, deep = data.channels * fold**2, data.size // fold, levels + (patch > 1 and fold == 1)
            name, network, count = nearest(make(channels, outputs * fold**2, side, deep), channels, side, wanted)
            form = "folded" if fold > 1 else "as documented"
            found[f"{owner}, {form}: `{name}`"] = (network, count, channels, side)
    return found


def compile_here(model: DDPM) -> DDPM:
    """Compile the model's network as `app.py --compile` does, but in this process, within minutes; return the model."""
    import tempfile

    from genlab import compiled

    with tempfile.TemporaryDirectory() as work:
        package = Path(work) / "network.pt2"
        compiled.compile_network(model, package)
        compiled.use(model, package)
    return model


def compiled_forward(network: nn.Module, name: str, channels: int, side: int) -> Callable[[Tensor, Tensor], Any] | None:
    """Return a network's forward pass compiled by `genlab.compiled`; None, with a message, if that fails."""
    import tempfile

    import torch

    from genlab import compiled
    from genlab.ddpm import DDPM
    from genlab.nn import drawing_precision

    print(f"compiling {name}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as work:
        package = Path(work) / "network.pt2"
        try:
            if isinstance(network, DDPM):
                return compile_here(network).predict
            with drawing_precision():
                compiled.compile_module(
                    network.requires_grad_(False), (torch.randn(2, channels, side, side), torch.ones(2).long()), package
                )
            return torch._inductor.aoti_load_package(str(package))
        except Exception as error:  # a peer's network that cannot be exported
            print(f"{name}: not compiled ({type(error).__name__})", file=sys.stderr)
            return None


def networks(model: DDPM, compile: bool = False) -> dict[str, Network]:
    """Return every network in every precision and layout to compare, by name; ours first."""
    import copy

    import torch

    from genlab.nn import computes_bf16

    data = model.data
    everyone: dict[str, tuple[nn.Module, float, int, int]] = {
        "genlab": (model, our_flops(model), data.channels, data.size)
    } | peers(model)
    ways = [("fp32", "default"), ("fp32", "channels_last")]
    if computes_bf16():
        ways.append(("bf16", "channels_last"))
    if compile:
        ways.append(("bf16" if computes_bf16() else "fp32", "compiled"))
    found = {}
    for name, (network, count, channels, side) in everyone.items():
        for precision, layout in ways:
            form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            moved: Any = copy.deepcopy(network).to(memory_format=form)  # type: ignore[call-overload]
            evaluate = moved.predict if name == "genlab" else moved
            if layout == "compiled" and (evaluate := compiled_forward(moved, name, channels, side)) is None:
                continue

            def forward(
                x: Tensor, t: Tensor, evaluate: Any = evaluate, form: Any = form, half: bool = precision == "bf16"
            ) -> Any:
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    return evaluate(x.contiguous(memory_format=form), t)

            owner = "genlab" if name == "genlab" else name.split()[0]
            found[f"{name}, {precision}, {layout}"] = Network(forward, count, owner, side, channels, precision, layout)
    return found


def convolution_peak(precision: str, layout: str, rounds: int) -> tuple[float, str]:
    """Return operations a second of the fastest of `CONVOLUTIONS` on `CONVOLVED` pictures, and its shape."""
    import torch
    from torch import nn

    from benchmarks.timing import alternate

    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    runs, counts = {}, {}
    for channels, side in CONVOLUTIONS:
        layer = nn.Conv2d(channels, channels, 3, padding=1).to(dtype=dtype, memory_format=form)  # type: ignore[call-overload]
        x = torch.randn(CONVOLVED, channels, side, side).to(dtype).contiguous(memory_format=form)
        name = f"{channels} channels at {side}×{side}"
        runs[name] = lambda layer=layer, x=x: layer(x)
        counts[name] = 2 * CONVOLVED * channels**2 * 9 * side**2
    seconds = {name: statistics.median(each) for name, each in alternate(runs, rounds).items()}
    best = max(runs, key=lambda name: counts[name] / seconds[name])
    return counts[best] / seconds[best], best


def shares(name: str, evaluate: Callable[[Tensor, Tensor], Any], x: Tensor, t: Tensor, rounds: int) -> dict[str, float]:
    """Return the share of a forward pass's time by kind of work; time outside of operators counts under the pass's name."""
    import torch
    from torch.profiler import ProfilerActivity, profile, record_function

    with torch.inference_mode():
        evaluate(x, t)
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(rounds):
                with record_function(f"forward, {name}"):
                    evaluate(x, t)
    return by_kind({event.key: event.self_cpu_time_total for event in profiler.key_averages()})


def by_kind(times: Mapping[str, float]) -> dict[str, float]:
    """Return the share of the time by kind of work, from the time spent in each operator itself by name."""
    spent = dict.fromkeys(KINDS, 0.0)
    for name, time in times.items():
        spent[next(kind for kind, parts in KINDS.items() if any(part in name for part in parts))] += time
    return {kind: time / sum(spent.values()) for kind, time in spent.items()}


def print_profile(model: DDPM, batches: Sequence[int], rounds: int, compile: bool) -> None:
    """Print the shares of our forward pass's time, in channels_last and compiled."""
    import copy

    import torch

    from benchmarks.timing import machine, table
    from genlab.nn import drawing_precision

    ways = {"channels_last": copy.deepcopy(model)}
    ways["channels_last"].unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compile:
        ways["compiled"] = compile_here(model)
    found = {}
    for batch in batches:
        x, t = torch.randn(batch, *model.data.shape), torch.full((batch,), model.schedule.T // 2)
        for name, way in ways.items():
            with drawing_precision():
                found[f"{name}, batch {batch}"] = shares(name, way.predict, x, t, rounds)
    print(f"Share of the time of a forward pass, {rounds} passes. {machine()}.\n")
    print(table(["kind of work", *found], [[kind, *(f"{each[kind]:.0%}" for each in found.values())] for kind in KINDS]))


def run(options: Options) -> None:
    """Measure and print."""
    import torch

    from benchmarks.timing import alternate, machine, ratio, table

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    batches = (1, 4) if options.quick else options.batches
    rounds = 3 if options.quick else options.rounds
    model = shipped_model(options.model)
    torch.manual_seed(0)
    if options.profile:
        return print_profile(model, batches, rounds, options.compile)
    ways = networks(model, options.compile)
    print("timing", file=sys.stderr, flush=True)
    peak = {way: convolution_peak(*way, rounds) for way in {n.best: None for n in ways.values()}}

    seconds: dict[int, dict[str, list[float]]] = {}
    for batch in batches:
        t = torch.full((batch,), model.schedule.T // 2)
        pictures = {name: torch.randn(batch, n.channels, n.side, n.side) for name, n in ways.items()}
        runs = {name: lambda n=n, x=pictures[name], t=t: n.forward(x, t) for name, n in ways.items()}
        seconds[batch] = alternate(runs, rounds)

    # The goal compares with the better peer in its default precision and layout.
    rivals = [name for name, n in ways.items() if n.owner != "genlab" and (n.precision, n.layout) == ("fp32", "default")]
    head = ["network", "MFLOP"]
    head += [f"× better peer, batch {b}" for b in batches] * bool(rivals)
    head += [f"images/s, batch {b}" for b in batches] + [f"share of peak, batch {b}" for b in batches]
    rows = []
    for name, network in ways.items():
        row: list[object] = [name, f"{network.flops / 1e6:.0f}"]
        for batch in batches * bool(rivals):
            best = min(rivals, key=lambda rival: statistics.median(seconds[batch][rival]))
            row.append(f"{ratio(seconds[batch][best], seconds[batch][name]):.2f}")
        speed = {batch: batch / statistics.median(seconds[batch][name]) for batch in batches}
        row += [f"{speed[batch]:.0f}" for batch in batches]
        row += [f"{speed[batch] * network.flops / peak[network.best][0]:.0%}" for batch in batches]
        rows.append(row)
    print(f"One forward pass, {options.model}, medians of {rounds} rounds in alternation. {machine()}.")
    for (precision, layout), (best_flops, shape) in peak.items():
        print(f"Fastest 3×3 convolution, {precision}, {layout}: {best_flops / 1e9:.0f} GFLOP/s ({shape}, batch {CONVOLVED}).")
    print("\n" + table(head, rows))


def main() -> None:
    """Run the command line."""
    run(tyro.cli(Annotated[Options, tyro.conf.FlagCreatePairsOff]))


if __name__ == "__main__":
    main()
