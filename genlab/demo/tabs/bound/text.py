"""The texts of the Bound tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "title": both("Bound", "变分界"),
    "lead": both(
        "The bound says how many bits a picture costs, step by step: $L_T$, every $L_{t-1}$, $L_0$. Click a step $t$ in the "
        "curve, then a pixel, and see the two Gaussians whose divergence is paid for there.",
        "这个界说明一张图片要花多少比特，一步一步地算：$L_T$、每个 $L_{t-1}$、$L_0$。在曲线上点选一步 $t$，再点选一个像素，"
        "看看在那里付出的是哪两个高斯分布之间的散度。",
    )
    + notes("n1-5-bound"),
    "none": both("No diffusion model is served here.", "这里没有加载扩散模型。"),
    "again": both("New noise", "换一份噪声"),
    "t": both("Step t, 1 to {T}", "步 t，1 到 {T}"),
    "seed": both("Seed of the noise in x_t", "x_t 中噪声的种子"),
    "ledger": both("The ledger of the bound", "变分界的账目"),
    "curve_title": both("Bits per dimension of one step: click a t", "每一步的比特/维：点选一个 t"),
    "bars_title": both("Their sum, bits/dim", "总和，比特/维"),
    "step": both("step t", "步 t"),
    "bits": both("bits/dim", "比特/维"),
    "this": both("this picture", "这张图片"),
    "prior": "L_T",
    "transitions": both("Σ L_{t−1}, t = 2 … T", "Σ L_{t−1}，t = 2 … T"),
    "decoder": "L_0",
    "measured": both(
        "{sigma}, the model's own: {total} bits/dim, the mean of {images} test pictures; ± is the standard error",
        "{sigma}（模型自己的）：{total} 比特/维，{images} 张测试图片的平均；± 为标准误差",
    ),
    "unmeasured": both(
        "This model has not been measured; training/evaluate.py does it. What the picture costs at a t is shown all the same.",
        "这个模型还没有测量过；training/evaluate.py 可以测量。仍然可以点选 t，看这张图片在那里的代价。",
    ),
    "canvas": both("The picture at step t, and the bits of each pixel", "第 t 步的图片，以及每个像素的比特数"),
    "pane": both("bits", "比特"),
    "caption": both(
        "t = {t} of {T}, ᾱₜ = {alpha_bar}: L{index} = {bits} bits/dim for this picture{measured}\n"
        "{by_variance}; last picture: the bits of each pixel, white is {white}",
        "t = {t}，共 {T} 步，ᾱₜ = {alpha_bar}：这张图片的 L{index} = {bits} 比特/维{measured}\n"
        "{by_variance}；最后一幅图：每个像素的比特数，白色为 {white}",
    ),
    "on_average": both("; on average {mean} ± {error}", "；平均为 {mean} ± {error}"),
    "pixel": both("One pixel at step t", "第 t 步的一个像素"),
    "gaussians_title": both("The pixel in row {row}, column {column}", "第 {row} 行第 {column} 列的像素"),
    "q": both("q(x_{t−1}|x_t, x_0)", "q(x_{t−1}|x_t, x_0)，后验"),
    "p": both("p_θ(x_{t−1}|x_t)", "p_θ(x_{t−1}|x_t)，模型"),
    "p_levels": both("p_θ(x_0|x_1), mass on each gray level", "p_θ(x_0|x_1)，每个灰度级上的概率"),
    "value": both("x_{t−1}, from black −1 to white 1", "x_{t−1}，黑 −1 到白 1"),
    "level": both("gray level of x_0, 0 to 255", "x_0 的灰度级，0 到 255"),
    "x_0_is": "x_0 = {level}",
    "sigma_title": both("Σ_θ between β̃ and β, log scale", "Σ_θ 在 β̃ 与 β 之间的位置，对数刻度"),
    "share": both("all pixels", "全部像素"),
    "chosen": both("this pixel", "这个像素"),
    "way": "0: β̃, 1: β",
    "kl": both(
        "KL[q ‖ p] = {bits} bits: how far the model's Gaussian p is from q, the one that knows x₀\n"
        "q: mean {q_mean}, σ {q_std}; p: mean {p_mean}, σ {p_std}; x₀ = {x_0}, xₜ = {x_t}, x̂₀ = {x0_hat}",
        "KL[q ‖ p] = {bits} 比特：模型的高斯 p 与知道 x₀ 的高斯 q 之间的差距\n"
        "q：均值 {q_mean}，σ {q_std}；p：均值 {p_mean}，σ {p_std}；x₀ = {x_0}，xₜ = {x_t}，x̂₀ = {x0_hat}",
    ),
    "l_0": both(
        "−log₂ p(x₀|x₁) = {bits} bits, from the mass of the model's p on the gray level of x₀, {level}\n"
        "p: mean {p_mean}, σ {p_std}, where a gray level is 0.0078 wide; x₀ = {x_0}, x₁ = {x_t}, x̂₀ = {x0_hat}",
        "−log₂ p(x₀|x₁) = {bits} 比特，来自模型的 p 在 x₀ 的灰度级 {level} 上的概率\n"
        "p：均值 {p_mean}，σ {p_std}，一个灰度级宽 0.0078；x₀ = {x_0}，x₁ = {x_t}，x̂₀ = {x0_hat}",
    ),
    "sigma": both(
        "{name}: β̃ = {beta_tilde}, Σ of this pixel = {sigma}, β = {beta}",
        "{name}：β̃ = {beta_tilde}，这个像素的 Σ = {sigma}，β = {beta}",
    ),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": r"""
$$-\log p_\theta(x_0) \;\le\; L_{VLB} = L_T + \sum_{t=2}^T L_{t-1} + L_0$$

$$L_T = \mathrm{KL}[q(x_T\mid x_0)\,\|\,p(x_T)],\qquad
L_{t-1} = \mathbb E_{q(x_t|x_0)}\,\mathrm{KL}[q(x_{t-1}\mid x_t,x_0)\,\|\,p_\theta(x_{t-1}\mid x_t)],\qquad
L_0 = \mathbb E_{q(x_1|x_0)}[-\log p_\theta(x_0\mid x_1)]$$

$$q(x_{t-1}\mid x_t,x_0) = \mathcal N(\tilde\mu_t(x_t,x_0),\ \tilde\beta_t I),\qquad
p_\theta(x_{t-1}\mid x_t) = \mathcal N(\tilde\mu_t(x_t,\hat x_0),\ \Sigma_\theta),\qquad
\tilde\beta_t = \tfrac{1-\bar\alpha_{t-1}}{1-\bar\alpha_t}\,\beta_t$$

$$\mathrm{KL} = \tfrac12\sum_i\Big[\log\frac{\Sigma_i}{\tilde\beta_t}
+ \frac{\tilde\beta_t + (\tilde\mu_i-\mu_{\theta,i})^2}{\Sigma_i} - 1\Big],
\qquad \log\Sigma_i = w_i\log\beta_t + (1-w_i)\log\tilde\beta_t$$

"""
    + both(
        r"$q(x_{t-1}|x_t,x_0)$ is a product of two Gaussians in $x_{t-1}$, one from $q(x_t|x_{t-1})$, one from "
        r"$q(x_{t-1}|x_0)$: precisions add, $\tfrac{\alpha_t}{\beta_t}+\tfrac1{1-\bar\alpha_{t-1}}=\tfrac1{\tilde\beta_t}$, "
        r"and the mean is weighted by them. The notes' chain of equalities writes ratios of standard deviations for ratios of "
        r"densities on the way; its result is the same.",
        r"$q(x_{t-1}|x_t,x_0)$ 是关于 $x_{t-1}$ 的两个高斯之积，分别来自 $q(x_t|x_{t-1})$ 和 $q(x_{t-1}|x_0)$："
        r"精度相加，$\tfrac{\alpha_t}{\beta_t}+\tfrac1{1-\bar\alpha_{t-1}}=\tfrac1{\tilde\beta_t}$，均值按精度加权。"
        r"讲义的一串等式在途中把密度之比写成了标准差之比，结果是对的。",
    )
    + "\n\n"
    + both(
        r"The notes say that $L_T$ and $L_{t-1}$ are no KL divergences: inside the outer expectation they are, so each has "
        r"a closed form and is $\ge 0$. The best $L_{t-1}$ is not 0 in general, since $p_\theta$ does not see $x_0$. And "
        r"$L_0 \ge 0$ only because gray levels are discrete: it takes the Gaussian's mass within half a level of $x_0$. "
        r"Classes are hidden from the network here; at $t = 1$, where $\tilde\beta_1 = 0$, $\tilde\beta_2$ takes its place.",
        r"讲义说 $L_T$ 和 $L_{t-1}$ 不是 KL 散度：在外层期望之内它们正是，所以每一项都有闭式，且 $\ge 0$。"
        r"$L_{t-1}$ 的最优值一般不是 0，因为 $p_\theta$ 看不到 $x_0$。而 $L_0 \ge 0$ 只因灰度级是离散的："
        r"它取高斯在 $x_0$ 上下半个灰度级之内的概率。这里不把类别告诉网络；"
        r"在 $t = 1$ 处 $\tilde\beta_1 = 0$，以 $\tilde\beta_2$ 代替。",
    ),
}  # fmt: skip
