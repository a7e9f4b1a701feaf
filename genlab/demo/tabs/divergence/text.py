"""The texts of the KL tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "title": both("KL", "KL 散度"),
    "lead": both(
        "One Gaussian q for a p of two modes. Under KL[p‖q] it must cover both and lands between them; under KL[q‖p] it picks "
        "one. Drag the modes, or the start of q.",
        "用一个高斯 q 去拟合双峰的 p。按 KL[p‖q]，它必须盖住两个峰，于是落在中间；按 KL[q‖p]，它只选一个峰。"
        "可以拖动两个峰，也可以拖动 q 的起点。",
    )
    + notes("n1-3-2"),
    "run": both("Run both fits", "运行两种拟合"),
    "other": both("Mirror the start", "镜像起点"),
    "example": both("Example", "例子"),
    "figure": both("Fits under the two directions of KL", "两种方向的 KL 下的拟合"),
    "forward": both("forward, KL[p‖q]: q covers p", "前向 KL[p‖q]：q 盖住 p"),
    "reverse": both("reverse, KL[q‖p]: q picks a mode", "反向 KL[q‖p]：q 选一个峰"),
    "p": both("p, the data", "p，数据"),
    "q": both("q, the fit", "q，拟合"),
    "start": both("start of q", "q 的起点"),
    "forward_integrand": both("p log(p/q): its area is KL[p‖q]", "p log(p/q)：面积为 KL[p‖q]"),
    "reverse_integrand": both("q log(q/p): its area is KL[q‖p]", "q log(q/p)：面积为 KL[q‖p]"),
    "forward_bars": both("in nats, for the forward q", "前向的 q，单位奈特"),
    "reverse_bars": both("in nats, for the reverse q", "反向的 q，单位奈特"),
    "left": both("left mode: mean and height", "左峰：均值与高度"),
    "left_width": both("left mode: width", "左峰：宽度"),
    "right": both("right mode: mean and height", "右峰：均值与高度"),
    "right_width": both("right mode: width", "右峰：宽度"),
    "start_mean": both("start of q: mean", "q 的起点：均值"),
    "start_width": both("start of q: width", "q 的起点：宽度"),
    "fitted": both("fitted", "拟合结果"),
    "step": both("step {i} of {n}", "第 {i} 步，共 {n} 步"),
    "caption": both(
        "{when} · forward: m = {m_f}, s = {s_f}, KL[p‖q] = {kl_f} · reverse: m = {m_r}, s = {s_r}, KL[q‖p] = {kl_r}",
        "{when} · 前向：m = {m_f}，s = {s_f}，KL[p‖q] = {kl_f} · 反向：m = {m_r}，s = {s_r}，KL[q‖p] = {kl_r}",
    ),
    "description": both(
        "p is {w} N({lm}, {ls}²) + {v} N({rm}, {rs}²), H(p) = {h} nats. q starts from N({sm}, {ss}²).",
        "p 为 {w} N({lm}, {ls}²) + {v} N({rm}, {rs}²)，H(p) = {h} 奈特。q 从 N({sm}, {ss}²) 出发。",
    ),
    "fit": both("q ends as N({m}, {s}²), with {name} = {value} nats.", "q 最后是 N({m}, {s}²)，{name} = {value} 奈特。"),
    "formula_title": both("The formula (notes 1.2, 1.3)", "公式（讲义 1.2、1.3）"),
    "formula": both(
        r"With $H(p) = -\mathbb E_p[\log p(x)]$ and the cross entropy $H(p,q) = -\mathbb E_p[\log q(x)]$, in nats:",
        r"设 $H(p) = -\mathbb E_p[\log p(x)]$，交叉熵 $H(p,q) = -\mathbb E_p[\log q(x)]$，单位为奈特：",
    )
    + r"""

$$\mathrm{KL}[p\,\|\,q] = \mathbb E_p\Big[\log\frac{p(x)}{q(x)}\Big] = H(p,q) - H(p) \;\ge\; 0$$

"""
    + both(
        r"**Forward**: $H(p)$ does not depend on $q$, so the least $\mathrm{KL}[p\,\|\,q]$ is the least cross entropy, that is "
        r"maximum likelihood. $p\log(p/q)$ is large where $p$ is and $q$ is not: $q$ must be nowhere near zero where $p$ is "
        "(zero-avoiding), and the best Gaussian has the mean and the variance of $p$ (mean-seeking), from every start.",
        r"**前向**：$H(p)$ 与 $q$ 无关，所以让 $\mathrm{KL}[p\,\|\,q]$ 最小就是让交叉熵最小，即最大似然。在 $p$ 大而 $q$ 小处，"
        r"$p\log(p/q)$ 很大，所以凡 $p$ 不为零处 $q$ 都不能接近零（zero-avoiding）；最好的高斯具有 $p$ 的均值和方差"
        "（mean-seeking），与起点无关。",
    )
    + "\n\n"
    + both(
        r"**Reverse**: $\mathrm{KL}[q\,\|\,p] = \mathbb E_q[\log(q/p)]$ weighs by $q$. It costs nothing where $q$ is zero and "
        r"much where $q$ is and $p$ is not (zero-forcing), so $q$ settles on one mode (mode-seeking): which one depends on the "
        r"start. A mode of weight $w$, far from the other, costs $-\log w$.",
        r"**反向**：$\mathrm{KL}[q\,\|\,p] = \mathbb E_q[\log(q/p)]$ 按 $q$ 加权。$q$ 为零处没有代价，$q$ 不为零而 $p$ 接近零处"
        r"代价很大（zero-forcing），所以 $q$ 停在一个峰上（mode-seeking），停在哪个由起点决定。若两峰相距很远，"
        r"选中权重为 $w$ 的峰，代价为 $-\log w$。",
    )
    + "\n\n"
    + both(
        r"A step of the walk, by the natural gradient of either divergence $D$ for $q = \mathcal N(m, s^2)$ (smaller where it "
        "would lead too far):",
        r"每走一步，对 $q = \mathcal N(m, s^2)$ 沿相应散度 $D$ 的自然梯度下降（可能走得太远时步子减小）：",
    )
    + r"""

$$m \leftarrow m - c\,s^2\,\frac{\partial D}{\partial m},\qquad
\log s \leftarrow \log s - \frac c2\,\frac{\partial D}{\partial\log s},\qquad c = \tfrac14$$
""",
}
