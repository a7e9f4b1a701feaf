"""What training/evaluate.py measured of a model, as tables: the likelihood's ledger, and the quality of samples."""

from __future__ import annotations

import math

import gradio as gr

from genlab.card import escape
from genlab.config import Variance
from genlab.demo.served import Models
from genlab.demo.tabs.controls import LATEX
from genlab.measurements import (
    ODE,
    Continuous,
    DiffusionBound,
    LatentBound,
    Reconstructions,
    Samples,
    VAEBound,
    read_evaluation,
)
from genlab.serving.language import both

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
SIGMA: dict[Variance, str] = {"learned": both("Σ learned", "学得的 Σ"), "posterior": "Σ = β̃", "beta": "Σ = β"}
TEXT = {
    "nothing": both("Nothing; training/evaluate.py does it.", "没有；可用 training/evaluate.py 测量。"),
    "ledger": both(
        "Measured: the bound on −log p(x), mean of {images} test pictures, ± standard error",
        "测量结果：−log p(x) 的上界，{images} 张测试图片的平均，± 标准误差",
    ),
    "bits": both("bits/dim", "比特/维"),
    "sum": both("**sum**", "**总和**"),
    "ode": both(
        "By the probability-flow ODE, a bound of its own (notes 2): **{bits} bits/dim**, {images} pictures; its solver takes "
        "{steps} steps, with half as many the figure changes by {change}.",
        "用概率流 ODE（讲义 2）得到的另一个上界：**{bits} 比特/维**，{images} 张图片；求解器走 {steps} 步，"
        "步数减半时数值变化 {change}。",
    ),
    "continuous": both(
        "The same network in continuous time, on a chain of {steps} steps: **{bits} bits/dim**, {images} pictures.",
        "同一网络在连续时间中（{steps} 步的链）：**{bits} 比特/维**，{images} 张图片。",
    ),
    "latent": both(
        "Measured: the bound on −log p(x) with the fitted prior, mean of {images} test pictures, ± standard error",
        "测量结果：采用拟合先验时 −log p(x) 的上界，{images} 张测试图片的平均，± 标准误差",
    ),
    "latent_head": both("| | nats | bits/dim |", "| | 奈特 | 比特/维 |"),
    "latent_reconstruction": both(r"reconstruction, $-\mathbb{E}\log p(x|z)$", r"重构项，$-\mathbb{E}\log p(x|z)$"),
    "latent_entropy": both(r"less the entropy of $q(z|x)$", r"减去 $q(z|x)$ 的熵"),
    "latent_prior": both(r"DDPM's bound on $-\log p(z)$", r"DDPM 对 $-\log p(z)$ 的上界"),
    "latent_mixture": both(r"$-\log p(z)$ of the mixture", r"混合高斯的 $-\log p(z)$"),
    "latent_standard": both(r"with $\mathcal{N}(0, I)$ as the prior", r"以 $\mathcal{N}(0, I)$ 为先验"),
    "few": both("{images} samples in fewer evaluations", "用更少次网络计算得到的 {images} 个样本"),
    "few_head": both(
        "| evaluations | Fréchet distance (95 %) | precision | recall | memorised share |",
        "| 计算次数 | Fréchet 距离（95 %） | 精确率 | 召回率 | 记忆比例 |",
    ),
    "reconstructions": both(
        "Reconstructions of {images} training pictures have the Fréchet distance {distance} ({low}–{high}), those pictures "
        "themselves {floor}: what samples with a perfect prior would have.",
        "{images} 张训练图片的重构的 Fréchet 距离为 {distance}（{low}–{high}），这些图片本身为 {floor}："
        "先验完美时样本应有的距离。",
    ),
    "chain": both(
        "{images} samples by the ancestral chain in {steps} steps, with each Σ",
        "用祖先采样走 {steps} 步得到的 {images} 个样本，各种 Σ",
    ),
    "chain_head": both(
        "| | Fréchet distance (95 %) | precision | recall | memorised share |",
        "| | Fréchet 距离（95 %） | 精确率 | 召回率 | 记忆比例 |",
    ),
    "evidence": both(
        "Measured: bounds on −log p(x), means of test pictures, ± standard error",
        "测量结果：−log p(x) 的上界，测试图片的平均，± 标准误差",
    ),
    "evidence_head": both("| | pictures | nats | bits/dim |", "| | 图片数 | 奈特 | 比特/维 |"),
    "elbo": both("−ELBO", "负 ELBO"),
    "weighted": both("{k} samples of z", "{k} 个 z 样本"),
    "evidence_parts": both(
        "−ELBO = reconstruction {reconstruction} + KL {kl} nats; {active} of {latents} latents are active.",
        "−ELBO = 重构项 {reconstruction} + KL {kl} 奈特；{latents} 个隐变量中有 {active} 个是活跃的。",
    ),
    "samples": both(
        "{images} samples ({how}) on the features of genlab's {features} classifier ({sha256}…, accuracy {accuracy}): "
        "a unit of its own, not FID",
        "{images} 个样本（{how}），用 genlab 的 {features} 分类器的特征（{sha256}…，准确率 {accuracy}）：自成单位，不是 FID",
    ),
    "decoder mean": both("means of the decoder at z ~ p(z)", "解码器在 z ~ p(z) 处的均值"),
    "steps": both("{sampler}, {steps} steps", "{sampler}，{steps} 步"),
    "samples_head": both("| | model | real pictures |", "| | 模型 | 真实图片 |"),
    "real": both("real pictures", "真实图片"),
    "frechet": both("Fréchet distance (95 %)", "Fréchet 距离（95 %）"),
    "kernel": both("kernel distance × 1000", "核距离 × 1000"),
    "precision": both("precision", "精确率"),
    "recall": both("recall", "召回率"),
    "memorised": both("memorised share", "记忆比例"),
}


def show(models: Models, model: str) -> list[gr.Markdown]:
    """Show the tables of a model, side by side if there is room."""
    shown = []
    with gr.Row(equal_height=False):
        for text in tables(models, model):
            with gr.Column(min_width=340):
                shown.append(gr.Markdown(text, latex_delimiters=LATEX, elem_classes="genlab-measured"))
    return shown


def tables(models: Models, model: str) -> tuple[str, str]:
    """Return what was measured of a model as Markdown: the likelihood, and the samples; empty if it was not."""
    measured = read_evaluation(models[model].package.metrics)
    likelihood = []
    if (ledger := measured.bound_of_chain(models[model].offer.T)) is not None:
        likelihood.append(_ledger(ledger))
        if measured.continuous is not None:
            likelihood.append(_continuous(measured.continuous))
        if measured.ode is not None:
            likelihood.append(_ode(measured.ode))
        if measured.chain is not None:
            likelihood.append(_chain(measured.chain))
    elif isinstance(measured.likelihood, VAEBound):
        likelihood.append(_evidence(measured.likelihood))
    elif isinstance(measured.likelihood, LatentBound):
        likelihood.append(_latent(measured.likelihood))
    quality = []
    if measured.samples is not None:
        quality.append(_samples(measured.samples))
    if measured.few is not None:
        quality.append(_few({name: each for name, each in measured.few.items() if name.isdigit()}))
    if measured.reconstructions is not None:
        quality.append(_reconstructions(measured.reconstructions))
    return "\n\n".join(likelihood), "\n\n".join(quality)


def joined(models: Models, model: str) -> str:
    """Return the tables of a model below each other, or that there are none."""
    return "\n\n".join(text for text in tables(models, model) if text) or TEXT["nothing"]


def own_first(ledger: DiffusionBound) -> list[Variance]:
    """Return the Σ that were measured, the model's own first."""
    return sorted(ledger.by_variance, key=lambda name: name != ledger.variance)


def _ledger(ledger: DiffusionBound) -> str:
    names = own_first(ledger)
    sums = [ledger.by_variance[name] for name in names]
    prior = [small(ledger.prior_term_L_T_bits_per_dim)] * len(sums)
    transitions, decoder, total = (
        [with_error(getattr(s, f"{key}_bits_per_dim"), getattr(s, f"{key}_standard_error_bits_per_dim")) for s in sums]
        for key in ("transition_terms_sum", "decoder_term_L_0", "bound")
    )
    head = [TEXT["bits"], *(SIGMA[name] for name in names)]
    rows = [["$L_T$", *prior], [r"$\sum L_{t-1}$", *transitions], ["$L_0$", *decoder]]
    rows.append([TEXT["sum"], *(f"**{value}**" for value in total)])
    return f"{TEXT['ledger'].format(images=f'{ledger.images:,}')}\n\n{_rows(_line(head), len(head), rows)}"


def _ode(ode: ODE) -> str:
    return TEXT["ode"].format(
        bits=with_error(ode.bound_bits_per_dim, ode.bound_standard_error_bits_per_dim),
        images=f"{ode.images:,}",
        steps=ode.steps,
        change=plain(ode.half_the_steps_change_bits_per_dim),
    )


def _continuous(continuous: Continuous) -> str:
    return TEXT["continuous"].format(
        bits=with_error(continuous.bound_bits_per_dim, continuous.bound_standard_error_bits_per_dim),
        images=f"{continuous.images:,}",
        steps=f"{continuous.steps:,}",
    )


def _latent(latent: LatentBound) -> str:
    rows = [
        [TEXT["latent_reconstruction"], f"{-latent.reconstruction_nats:,.1f}", ""],
        [TEXT["latent_entropy"], f"{-latent.entropy_of_q_nats:,.1f}".replace("-", "−"), ""],
        [
            TEXT["latent_mixture" if latent.codes is None else "latent_prior"],
            with_error(latent.prior_nats, latent.prior_standard_error_nats, 1),
            "",
        ],
        [TEXT["sum"], "", f"**{with_error(latent.bound_bits_per_dim, latent.bound_standard_error_bits_per_dim)}**"],
        [TEXT["latent_standard"], "", plain(latent.standard_normal_prior_bound_bits_per_dim)],
    ]
    return f"{TEXT['latent'].format(images=f'{latent.images:,}')}\n\n{_rows(TEXT['latent_head'], 3, rows)}"


def _chain(chain: dict[Variance, Samples]) -> str:
    some = next(iter(chain.values()))
    title = TEXT["chain"].format(images=f"{some.images:,}", steps=some.steps)
    return f"{title}\n\n{_variants(TEXT['chain_head'], {SIGMA[name]: each for name, each in chain.items()})}"


def _few(few: dict[str, Samples]) -> str:
    some = next(iter(few.values()))
    return f"{TEXT['few'].format(images=f'{some.images:,}')}\n\n{_variants(TEXT['few_head'], few)}"


def _variants(head: str, variants: dict[str, Samples]) -> str:
    """Return a row for each way of drawing samples, and one of real pictures."""
    some = next(iter(variants.values()))
    rows = [
        [name, _distance(each), f"{each.precision:.2f}", f"{each.recall:.2f}", f"{each.memorised_share:.1%}"]
        for name, each in variants.items()
    ]
    real = [f"{value:.2f}" for value in (some.frechet_floor, some.precision_of_real, some.recall_of_real)]
    rows.append([TEXT["real"], *real, f"{some.memorised_share_of_held_out:.1%}"])
    return _rows(head, 5, rows)


def _reconstructions(found: Reconstructions) -> str:
    low, high = found.frechet_interval_95
    return TEXT["reconstructions"].format(
        images=f"{found.images:,}",
        distance=f"{found.frechet_distance:.2f}",
        low=f"{low:.2f}",
        high=f"{high:.2f}",
        floor=f"{found.frechet_floor:.2f}",
    )


def _evidence(evidence: VAEBound) -> str:
    rows = []
    for each in evidence.importance_weighted:
        bits = "–"
        if each.bound_bits_per_dim is not None and each.bound_standard_error_bits_per_dim is not None:
            bits = f"**{with_error(each.bound_bits_per_dim, each.bound_standard_error_bits_per_dim)}**"
        name = TEXT["elbo"] if each.k == 1 else TEXT["weighted"].format(k=f"{each.k:,}")
        rows.append([name, f"{each.images:,}", with_error(-each.bound_nats, each.bound_standard_error_nats, 1), bits])
    parts = TEXT["evidence_parts"].format(
        reconstruction=with_error(-evidence.reconstruction_nats, evidence.reconstruction_standard_error_nats, 1),
        kl=with_error(evidence.kl_nats, evidence.kl_standard_error_nats, 2),
        active=evidence.active_latents,
        latents=evidence.latents,
    )
    return f"{TEXT['evidence']}\n\n{_rows(TEXT['evidence_head'], 4, rows)}\n\n{parts}"


def _samples(samples: Samples) -> str:
    sampler = TEXT["decoder mean"] if samples.sampler == "decoder mean" else escape(samples.sampler)
    title = TEXT["samples"].format(
        images=f"{samples.images:,}",
        how=TEXT["steps"].format(sampler=sampler, steps=samples.steps) if samples.steps > 1 else sampler,
        features=escape(samples.features.name),
        sha256=escape(samples.features.sha256[:12]),
        accuracy=f"{100 * samples.features.accuracy:.1f} %",
    )
    kernel = with_error(samples.kernel_distance_x1000, samples.kernel_distance_standard_error_x1000, 1)
    rows = [
        [TEXT["frechet"], _distance(samples), f"{samples.frechet_floor:.2f}"],
        [TEXT["kernel"], kernel, plain(samples.kernel_distance_floor_x1000, 1)],
        [TEXT["precision"], f"{samples.precision:.2f}", f"{samples.precision_of_real:.2f}"],
        [TEXT["recall"], f"{samples.recall:.2f}", f"{samples.recall_of_real:.2f}"],
        [TEXT["memorised"], f"{samples.memorised_share:.1%}", f"{samples.memorised_share_of_held_out:.1%}"],
    ]
    return f"{title}\n\n{_rows(TEXT['samples_head'], 3, rows)}"


def _distance(samples: Samples) -> str:
    low, high = samples.frechet_interval_95
    return f"{samples.frechet_distance:.2f} ({low:.2f}–{high:.2f})"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rows(head: str, columns: int, rows: list[list[str]]) -> str:
    return "\n".join([head, "|" + "---|" * columns, *map(_line, rows)])


def with_error(value: float, error: float, digits: int = 3) -> str:
    """Return a number and its standard error; a small one with as many digits as its error has."""
    if abs(value) < 0.001 and error > 1e-9:
        digits = max(digits, math.ceil(-math.log10(error)))
    return f"{value:,.{digits}f} ± {error:,.{digits}f}".replace("-", "−")


def plain(value: float, digits: int = 3) -> str:
    """Return a number of about 1 in words."""
    return f"{value:.{digits}f}".replace("-", "−")


def small(value: float, digits: int = 3) -> str:
    """Return a number of any size, to so many digits: decimals from 10⁻⁷ on, else with a power of ten."""
    if not math.isfinite(value):
        return f"{value}"
    exponent = int(f"{value:e}".partition("e")[2])
    if exponent >= -7:
        return f"{value:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")
    power = f"{exponent}".translate(RAISED)
    return f"{value / 10**exponent:.{digits - 1}f}·10{power}".replace("-", "−")
