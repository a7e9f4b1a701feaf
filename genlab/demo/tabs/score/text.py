"""The texts of the Score tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "title": both("Score", "分数"),
    "lead": both(
        r"At every noise level t, arrows lead to where the data are: the score $s = \nabla\log q(x_t)$. Drag t, train the "
        "network, which learns the arrows without knowing q, and let points walk along them.",
        r"在每个噪声水平 t，都有箭头指向数据所在之处：分数 $s = \nabla\log q(x_t)$。拖动 t；训练网络，它不知道 q 也能学到"
        "这些箭头；再让点沿着箭头走。",
    )
    + notes("n2"),
    "train": both("Train the network", "训练网络"),
    "stop": both("Stop", "停止"),
    "langevin": both("Langevin walk", "朗之万行走"),
    "reverse": both("Reverse walks", "反向行走"),
    "flow": both("Flow matching", "流匹配"),
    "diffusion path": both("flow ODE of the diffusion: x_t", "扩散的概率流 ODE：x_t"),
    "straight path": both("flow matching: x_s = x_t/c_t", "流匹配：x_s = x_t/c_t"),
    "path": both("path of the exact flow", "精确流的路径"),
    "chord": both("straight line between its ends", "两端之间的直线"),
    "paths": both(
        "t = {t}, s = {s} · length of the paths ÷ distance of their ends: diffusion {curved}, flow matching {straight}",
        "t = {t}，s = {s} · 路径的长度 ÷ 两端的距离：扩散 {curved}，流匹配 {straight}",
    ),
    "data": both("Data", "数据"),
    "seed": both("Seed of the walks", "行走的种子"),
    "figure": both("Score field", "分数场"),
    "exact": both("exact score s", "精确的分数 s"),
    "learned": both("learned score ŝ, after {steps} steps", "学到的分数 ŝ，训练 {steps} 步"),
    "untrained": both("ŝ of the network, not yet trained", "网络的 ŝ，尚未训练"),
    "level": both("noise level t: drag it", "噪声水平 t：可以拖动"),
    "points": both("data x_0", "数据 x_0"),
    "density": both("density q(x_t)", "密度 q(x_t)"),
    "s": both("s, length as √‖s‖", "s，长度按 √‖s‖"),
    "s_hat": both("ŝ, likewise", "ŝ，同样"),
    "signal": both("signal √ᾱ_t", "信号 √ᾱ_t"),
    "noise": both("noise σ_t = √(1−ᾱ_t)", "噪声 σ_t = √(1−ᾱ_t)"),
    "particles": both("particles", "粒子"),
    "sde": both("reverse SDE", "反向 SDE"),
    "ode": both("flow ODE", "概率流 ODE"),
    "handle": both("noise level t", "噪声水平 t"),
    "numbers": both(
        "t = {t} of {T} · ᾱ = {alpha_bar} · σ = {sigma} · mean ‖ŝ − s‖² = {error}, of mean ‖s‖² = {norm}",
        "t = {t}，共 {T} · ᾱ = {alpha_bar} · σ = {sigma} · ‖ŝ − s‖² 的均值 = {error}，‖s‖² 的均值 = {norm}",
    ),
    "learning": both("step {step} of {steps} · loss {loss} · ", "第 {step} 步，共 {steps} 步 · 损失 {loss} · "),
    "waiting": both("waiting for other trainings to end: {before} · ", "等待另外 {before} 个训练 · "),
    "step": both("Langevin step {i} of {n} at t = {t}", "t = {t} 处的朗之万动力学，第 {i} 步，共 {n} 步"),
    "time": both("t = {t} · σ = {sigma}", "t = {t} · σ = {sigma}"),
    "description": both(
        "Data: {data}. Arrows of the exact score on the left, of the network on the right, over the density of the noisy data.",
        "数据：{data}。左边是精确分数的箭头，右边是网络的箭头，底下是加噪数据的密度。",
    ),
    "formula_title": both("The formula (notes 2, completed)", "公式（讲义 2，补全）"),
    "formula": both(
        "The notes have only the heading. The score of noisy data is their expected noise, up to a factor, so a DDPM's network "
        "is a score model:",
        "讲义这一节只有标题。加噪数据的分数就是其中噪声的期望（差一个系数），因此 DDPM 的网络就是一个分数模型：",
    )
    + r"""

$$s(x_t,t) = \nabla\log q(x_t) = -\frac{\mathbb E[\varepsilon\mid x_t]}{\sqrt{1-\bar\alpha_t}},\qquad
\sqrt{\bar\alpha_t}\;\mathbb E[x_0\mid x_t] = x_t + (1-\bar\alpha_t)\,s(x_t,t)$$

"""
    + both(
        "An arrow here is a part of the way in the second formula, Tweedie's. **Denoising score matching** (Vincent 2011) "
        "makes it learnable, for the target needs no $q(x_t)$, and $C$ does not depend on the network:",
        "这里的箭头是第二个公式（Tweedie 公式）中那段路的一部分。**去噪分数匹配**（Vincent 2011）使它可以学习：目标不需要 "
        "$q(x_t)$，而 $C$ 与网络无关：",
    )
    + r"""

$$\mathbb E\,\big\|\hat s(x_t,t) - \nabla\log q(x_t\mid x_0)\big\|^2 = \mathbb E\,\big\|\hat s(x_t,t) - s(x_t,t)\big\|^2 + C,
\qquad \nabla\log q(x_t\mid x_0) = -\frac{\varepsilon}{\sqrt{1-\bar\alpha_t}}$$

"""
    + both(
        r"**Langevin dynamics** at one level leads from anywhere to $q(x_t)$, for small $\eta$. Where there is little noise it "
        "hardly crosses from one mode to another, which is why one starts with much (Song & Ermon 2019). **The reverse SDE** "
        r"and **the probability-flow ODE** (Song et al. 2021) go back from $x_T \sim \mathcal N(0, I)$: other paths, but the "
        r"same $q(x_\tau)$ at every $\tau$:",
        r"在一个噪声水平上的**朗之万动力学**，当 $\eta$ 很小时，从任何地方都走到 $q(x_t)$。噪声小时它几乎不能从一个峰"
        r"走到另一个峰，所以要从大的噪声开始（Song 与 Ermon 2019）。**反向 SDE** 与**概率流 ODE**（Song 等，2021）从 "
        r"$x_T \sim \mathcal N(0, I)$ 走回来：路径不同，但在每个 $\tau$ 处 $q(x_\tau)$ 相同：",
    )
    + r"""

$$x \leftarrow x + \eta\, s(x,t) + \sqrt{2\eta}\, z,\qquad
\mathrm dx = -\tfrac12\beta\,[x + 2s]\,\mathrm d\tau + \sqrt\beta\,\mathrm d\bar w,\qquad
\mathrm dx = -\tfrac12\beta\,[x + s]\,\mathrm d\tau$$

"""
    + both(
        r"**Flow matching** (Lipman et al. 2023) mixes points and noise on straight lines, $x_s = (1-s)x_0 + s\varepsilon$, "
        "and walks along their mean velocity. It is the same flow in another unit and at another time, with the same ends. "
        "Only the lines are straight: where they cross the flow bends, at first towards the mean of the data, then out to a "
        "mode.",
        r"**流匹配**（Lipman 等，2023）在直线上混合数据与噪声，$x_s = (1-s)x_0 + s\varepsilon$，并沿平均速度行走。"
        "它是同一个流，只是换了单位和时间，起点和终点相同。直的只是那些连线：连线相交处流会弯曲，"
        "先走向数据的均值，再走到某个峰。",
    )
    + r"""

$$u(x_s,s) = \mathbb E[\varepsilon - x_0\mid x_s],\qquad \mathrm dx = u\,\mathrm ds,\qquad
x_s = \frac{x_t}{c_t},\quad s = \frac{\sqrt{1-\bar\alpha_t}}{c_t},\quad c_t = \sqrt{\bar\alpha_t} + \sqrt{1-\bar\alpha_t}$$
""",
}
