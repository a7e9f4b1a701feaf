"""The texts of the Diffusion tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "title": both("Diffusion", "扩散"),
    "lead": both(
        "Forward, a fixed rule drowns a picture in noise; in reverse, the network has learned to pull a picture out of it.",
        "前向过程按固定的规则把图片淹没在噪声里；反向过程中，网络学会了从噪声里把图片找回来。",
    )
    + notes("n1-5"),
    "empty": both(
        "Press “Run the process”: noise grows over the picture, then the network takes it away.",
        "点击“运行过程”：噪声逐步盖住图片，再由网络逐步去除。",
    ),
    "none": both("No diffusion model is served here.", "这里没有加载扩散模型。"),
    "model": both("Model", "模型"),
    "picture": both("Picture", "图片"),
    "class": both("Show one of the class", "换成某一类的图片"),
    "steps": both("Steps", "步数"),
    "steps_info": both("shown on the way there, and taken on the way back", "前向展示的步数，也是反向所走的步数"),
    "sampler": both("Sampler of the way back", "反向过程的采样方法"),
    "sampler_info": both(
        "ancestral is the notes' reverse process; DDIM leaves its chance out",
        "祖先采样即讲义中的反向过程；DDIM 去掉其中的随机性",
    ),
    "until": both("Noise up to t", "加噪到 t"),
    "until_info": both(
        "where the way there ends and the way back starts: how much of the picture survives?",
        "前向过程的终点，也是反向过程的起点：图片还剩下多少？",
    ),
    "start": both("The way back starts from", "反向过程的起点"),
    "label": both("Class for the way back", "反向生成的类别"),
    "label_info": both(
        "what the way back is to make; “any”: the class that the seed falls on, or none from a t < T",
        "希望反向过程生成什么；“任意”：由种子决定类别，从 t < T 出发时则不用类别",
    ),
    "seed": both("Seed of the noise", "噪声的种子"),
    "run": both("Run the process", "运行过程"),
    "stop": both("Stop", "停止"),
    "more": both("More", "更多选项"),
    "forward": both("forward q", "前向 q"),
    "reverse": both("reverse p_θ", "反向 p_θ"),
    "caption": "{direction} · t = {t} · ᾱ = {alpha_bar} · SNR = {snr}\n{formula}",
    "forward_formula": both("x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε;  x_0 and ε are known", "x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε；x_0 和 ε 已知"),
    "start_formula": both("x_0, the picture itself", "x_0，图片本身"),
    "ancestral_formula": both(
        "x_s ~ N(μ̃(x_t, x̂_0), Σ_θ);  x̂_0 and ε̂ are the network's predictions from x_t",
        "x_s ~ N(μ̃(x_t, x̂_0), Σ_θ)；x̂_0 和 ε̂ 是网络从 x_t 中看出的",
    ),
    "DDIM_formula": both(
        "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂;  x̂_0 and ε̂ are the network's predictions from x_t",
        "x_s = √ᾱ_s x̂_0 + √(1−ᾱ_s) ε̂；x̂_0 和 ε̂ 是网络从 x_t 中看出的",
    ),
    "end_formula": both(
        "x_0, made by the reverse process: {rms} gray levels (RMS) from the picture, correlation {correlation}",
        "x_0，反向过程生成的图片：与原图相差 {rms} 个灰度级（均方根），相关系数 {correlation}",
    ),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": both("**Forward**, one step and any number of steps at once:", "**前向过程**，走一步，以及一次走若干步：")
    + r"""

$$q(x_t\mid x_{t-1}) = \mathcal N\big(\sqrt{1-\beta_t}\,x_{t-1},\ \beta_t I\big),\qquad
q(x_t\mid x_0) = \mathcal N\big(\sqrt{\bar\alpha_t}\,x_0,\ (1-\bar\alpha_t) I\big),\qquad
\bar\alpha_t = \prod_{i\le t}(1-\beta_i)$$

"""
    + both(
        r"These are two distributions; the notes' “$q(x_t|x_{t-1}) = q(x_t|x_0)$” is a slip. What is shown is one path of "
        r"the chain, each $x_t$ drawn from the one before. The signal-to-noise ratio is $\bar\alpha_t/(1-\bar\alpha_t)$, in "
        r"decibels $10\log_{10}$ of it.",
        r"这是两个不同的分布；讲义中的“$q(x_t|x_{t-1}) = q(x_t|x_0)$”是笔误。这里展示的是链上的一条路径，每个 $x_t$ "
        r"都由前一个抽样得到。信噪比为 $\bar\alpha_t/(1-\bar\alpha_t)$，分贝数是它的 $10\log_{10}$。",
    )
    + "\n\n"
    + both(
        r"**Reverse**: $\;p_\theta(x_{t-1}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\ \Sigma_\theta(x_t,t)\big)$ with the "
        r"posterior's mean, in which the network's $\hat x_0$ stands for the unknown picture:",
        r"**反向过程**：$\;p_\theta(x_{t-1}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\ \Sigma_\theta(x_t,t)\big)$，"
        r"均值取后验分布的均值，其中未知的原图由网络给出的 $\hat x_0$ 代替：",
    )
    + r"""

$$\mu_\theta = \frac{\sqrt{\alpha_t}(1-\bar\alpha_{t-1})}{1-\bar\alpha_t}\,x_t +
\frac{\sqrt{\bar\alpha_{t-1}}\,\beta_t}{1-\bar\alpha_t}\,\hat x_0,
\qquad \hat x_0 = \frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$

"""
    + both(
        r"In $x_T$ nearly nothing of the picture is left ($\bar\alpha_T \approx 0$), so the way back leads to another picture. "
        r"From a middle $t$ it keeps what the noise has left, coarse before fine, and invents the rest: move “Noise up to t”.",
        r"在 $x_T$ 处，原图几乎什么也没留下（$\bar\alpha_T \approx 0$），所以反向过程会走到另一张图片。"
        r"从中间的 $t$ 出发，它保留噪声没有淹没的部分（先是轮廓，后是细节），其余由它创造：试试移动“加噪到 t”。",
    ),
}

PANES = ("x_t", "x̂_0", "ε̂")
