"""The texts of the VAE tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "title": "VAE",
    "lead": both(
        "An encoder squeezes a picture into a few numbers z, a decoder makes a picture of them again: "
        r"$x \to \mu, \sigma \to z \to \mu', \sigma' \to \hat x$. Draw on the first picture or drag a z, and "
        "see what comes out.",
        "编码器把图片压缩成几个数 z，解码器再由它们生成图片："
        r"$x \to \mu, \sigma \to z \to \mu', \sigma' \to \hat x$。在第一张图上画，或拖动某个 z，看看会得到什么。",
    )
    + notes("n1-4"),
    "none": both("No VAE is served here.", "这里没有加载 VAE。"),
    "again": both("Draw z again", "重新抽取 z"),
    "seed": both("Seed of the noise in z and x̂", "z 和 x̂ 中噪声的种子"),
    "canvas": both("The picture, and what the decoder makes of z", "图片，以及解码器由 z 生成的图片"),
    "gaussian_caption": both(
        "log p(x|z) = {nats} nats = {bits} bits/dim at this z\nσ′ = {sigma} (white is {white}); x̂ is drawn from N(μ′, σ′²)",
        "在这个 z 处，log p(x|z) = {nats} 奈特 = {bits} 比特/维\nσ′ = {sigma}（白色为 {white}）；x̂ 从 N(μ′, σ′²) 中抽取",
    ),
    "logistic_caption": both(
        "log p(x|z) = {nats} nats = {bits} bits/dim at this z\nσ′ = {sigma} (white is {white}); x̂ is drawn from a logistic "
        "distribution with mean μ′ and standard deviation σ′",
        "在这个 z 处，log p(x|z) = {nats} 奈特 = {bits} 比特/维\nσ′ = {sigma}（白色为 {white}）；"
        "x̂ 从均值 μ′、标准差 σ′ 的逻辑斯谛分布中抽取",
    ),
    "bernoulli_caption": both(
        "log p(x|z) = {nats} nats = {bits} bits/dim at this z\nσ′ = √(1−μ′²) = {sigma} (white is 1); x̂ is drawn pixel by "
        "pixel, light with probability (1+μ′)/2",
        "在这个 z 处，log p(x|z) = {nats} 奈特 = {bits} 比特/维\nσ′ = √(1−μ′²) = {sigma}（白色为 1）；x̂ 逐像素抽取，"
        "为亮的概率是 (1+μ′)/2",
    ),
    "latents": both("Latents", "隐变量"),
    "latents_title": both("q(z|x) and z: drag it", "q(z|x) 与 z：可拖动"),
    "prior": both("p(z) = N(0, 1)", "p(z) = N(0, 1)，先验"),
    "posterior": both("q(z|x) = N(μ, σ²)", "q(z|x) = N(μ, σ²)，编码器"),
    "handle": both("latent z_{i}", "隐变量 z_{i}"),
    "kl_title": both("KL[q(z_i|x) ‖ p(z_i)], nats", "KL[q(z_i|x) ‖ p(z_i)]，奈特"),
    "latent": "{name}: μ {mean}, σ {std}, z {z}, KL {kl}",
    "active": both(
        "The {shown} most active of {all} latents, by the variance of μ over the test pictures.",
        "{all} 个隐变量中最活跃的 {shown} 个，按 μ 在测试图片上的方差排序。",
    ),
    "terms": both("The bound", "下界"),
    "whole_title": both("log p(x) = ELBO + gap", "log p(x) = ELBO + 差距"),
    "end_title": both("its end, enlarged", "末端放大"),
    "curve_title": both("log p(x) by k samples of z", "用 k 个 z 的样本估计 log p(x)"),
    "reconstruction": both("−E_q[log p(x|z)]", "−E_q[log p(x|z)]，重构"),
    "kl": both("KL[q(z|x) ‖ p(z)]", "KL[q(z|x) ‖ p(z)]，正则"),
    "log_px": both("−log p(x)", "−log p(x)，负对数似然"),
    "gap": both("gap KL[q(z|x) ‖ p(z|x)]", "差距 KL[q(z|x) ‖ p(z|x)]"),
    "nats": both("nats", "奈特"),
    "above": both("L_k − ELBO, nats", "L_k − ELBO，奈特"),
    "bits": both("{bits} bits/dim", "{bits} 比特/维"),
    "terms_caption": both(
        "ELBO = {reconstruction} − {kl} = {elbo} nats ({elbo_bits} bits/dim); log p(x) ≥ Lₖ = {log_px} nats "
        "({log_px_bits} bits/dim) by k = {k} importance-weighted samples; the gap is at least {gap} nats",
        "ELBO = {reconstruction} − {kl} = {elbo} 奈特（{elbo_bits} 比特/维）；用 k = {k} 个重要性加权样本，"
        "log p(x) ≥ Lₖ = {log_px} 奈特（{log_px_bits} 比特/维）；差距至少为 {gap} 奈特",
    ),
    "correction": both(
        "The notes fear that log p(x) falls with the gap while the decoder improves; said exactly: log p(x) changes by the "
        "rise of the ELBO plus the change of the gap, and the gap, being ≥ 0, can fall by its old value at most.",
        "讲义担心改进解码器时，log p(x) 会随差距一起下降；准确地说：log p(x) 的变化等于 ELBO 的上升加上差距的变化，"
        "而差距 ≥ 0，最多只能下降它原来的值。",
    ),
    "density": both("The density of one pixel", "一个像素的概率密度"),
    "density_lead": both(
        r"**Many Gaussians add up to P(x)** (figure 3): each $z_i \sim p(z)$ gives a pixel one Gaussian (a logistic decoder: "
        "one logistic). Press play for more; click a pixel of a picture above to choose another.",
        r"**许多高斯相加得到 P(x)**（图 3）：每个 $z_i \sim p(z)$ 给像素一个高斯（逻辑斯谛解码器则给一个逻辑斯谛分布）。"
        "点击播放，加入更多；在上面的图片里可点选另一个像素。",
    ),
    "gaussian_singles": both("N(x; μ(z_i), σ(z_i)²) / N", "N(x; μ(z_i), σ(z_i)²) / N，单个高斯"),
    "logistic_singles": both("p(x|z_i) / N, logistic", "p(x|z_i) / N，单个逻辑斯谛分布"),
    "sum": both("P(x), their sum", "P(x)，它们的和"),
    "histogram": both("test pictures", "测试图片"),
    "pixel": both("the pixel, from black −1 to white 1", "像素值，黑 −1 到白 1"),
    "pixel_title": both("Pixel in row {row}, column {column}", "第 {row} 行第 {column} 列的像素"),
    "logistic_components": both(
        "N = {count}: P(x) ≈ 1/N Σ p(x|zᵢ), logistic with mean μ(zᵢ) and standard deviation σ(zᵢ), zᵢ ~ N(0, I)",
        "N = {count}：P(x) ≈ 1/N Σ p(x|zᵢ)，均值 μ(zᵢ)、标准差 σ(zᵢ) 的逻辑斯谛分布，zᵢ ~ N(0, I)",
    ),
    "gaussian_components": both(
        "N = {count}: P(x) ≈ 1/N Σ N(x; μ(zᵢ), σ(zᵢ)²), zᵢ ~ N(0, I)",
        "N = {count}：P(x) ≈ 1/N Σ N(x; μ(zᵢ), σ(zᵢ)²)，zᵢ ~ N(0, I)",
    ),
    "bernoulli": both(
        "This model's decoder is Bernoulli: the pixel is light with probability {light}, the mean over {count} zᵢ.",
        "这个模型的解码器是伯努利分布：像素为亮的概率是 {light}，即 p(x|zᵢ) 对 {count} 个 zᵢ 的平均。",
    ),
    "formula_title": both("The formula (notes 1.4)", "公式（讲义 1.4）"),
    "formula": r"""
$$p(x) = \int p(z)\,p(x\mid z)\,dz,\qquad z\sim\mathcal N(0,I),\qquad x\mid z\sim\mathcal N\big(\mu'(z),\sigma'^2(z)\big)$$

$$\log p(x) = \underbrace{\mathbb E_{q(z|x)}[\log p(x\mid z)] - \mathrm{KL}[q(z\mid x)\,\|\,p(z)]}_{\text{ELBO}}
+ \underbrace{\mathrm{KL}[q(z\mid x)\,\|\,p(z\mid x)]}_{\ge 0}$$

$$\text{ELBO} = L_1 \le L_k = \mathbb E\Big[\log\frac1k\sum_{i=1}^k\frac{p(x,z_i)}{q(z_i\mid x)}\Big] \le \log p(x),
\qquad z_i\sim q(z\mid x)$$

"""
    + both(
        "$p(x|z)$ is the mass on each pixel's gray level, so that the numbers are those of an 8-bit picture and can be "
        r"compared with other models. Samples are drawn by $z = \mu + \sigma\varepsilon$, $\varepsilon\sim\mathcal N(0, I)$, "
        r"so that the gradient passes through $\mu$ and $\sigma$.",
        "$p(x|z)$ 取每个像素灰度级上的概率，因此这些数值针对 8 位图片，可与其他模型比较。"
        r"样本按 $z = \mu + \sigma\varepsilon$，$\varepsilon\sim\mathcal N(0, I)$ 抽取，使梯度能通过 $\mu$ 和 $\sigma$ 传递。",
    ),
}  # fmt: skip
