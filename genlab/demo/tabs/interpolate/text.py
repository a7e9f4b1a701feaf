"""The texts of the Interpolate tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

VAE_LINEAR = both("VAE, straight line", "VAE，沿直线")
VAE_SPHERICAL = both("VAE, along the sphere", "VAE，沿球面")
DDPM_SPHERICAL = both("DDPM, along the sphere", "DDPM，沿球面")

NAMES = (VAE_LINEAR, VAE_SPHERICAL, DDPM_SPHERICAL)

TEXT = {
    "title": both("Interpolate", "插值"),
    "lead": both(
        "What lies between two pictures? A VAE and a diffusion model answer differently: one blends, the other invents.",
        "两张图片之间有什么？VAE 和扩散模型的回答不同：一个混合，一个创造。",
    )
    + notes("n1-4", "n1-5"),
    "empty": both("Press “Find the paths”, then move the scrubber from A to B.", "点击“寻找路径”，然后把进度条从 A 拖到 B。"),
    "data": both("Pictures of", "数据集"),
    "points": both("Points on the path", "路径上的点数"),
    "points_info": both("columns of the strip, A and B included", "长图的列数，包括 A 和 B"),
    "steps": both("Steps", "步数"),
    "steps_info": both("of the walk to the noise, and again of the walk back", "走到噪声的步数，走回来也是这么多步"),
    "run": both("Find the paths", "寻找路径"),
    "stop": both("Stop", "停止"),
    "strip": both("The paths from A to B", "从 A 到 B 的路径"),
    "rows": both(
        "A on the left, B on the right. Rows, from the top: {rows}. The ends of the VAE's rows are its reconstructions of "
        "A and B, what is left of a picture after a squeeze through z. The diffusion model's ends come back to A and B.",
        "左边是 A，右边是 B。从上到下各行：{rows}。VAE 各行的两端是它对 A 和 B 的重构，也就是图片压缩成 z 之后还留下的东西；"
        "扩散模型的两端会回到 A 和 B。",
    ),
    "and": both("; ", "；"),
    "missing": both(
        "There is no {kind} of this data set here, so its path is missing.", "这里没有这个数据集的 {kind}，所以缺少它的路径。"
    ),
    "ends": both("A and B on their way to noise · t = {t}", "A 和 B 正走向噪声 · t = {t}"),
    "path": both(
        "noise on its way to {points} pictures, the middle one shown · t = {t}",
        "噪声正走向 {points} 张图片，显示的是中间一张 · t = {t}",
    ),
    "point": both(
        "point {index} of {count} · {percent} % of the way from A to B",
        "第 {index} 点，共 {count} 点 · 从 A 到 B 走了 {percent}%",
    ),
    "formula_title": both("The formula (notes 1.4, 1.5)", "公式（讲义 1.4、1.5）"),
    "formula": both(
        r"$a$ and $b$ are the two codes: $z = \mu_\phi(x)$ for the VAE; for the diffusion model the noise $x_T$ to which DDIM, "
        r"run backwards, leads a picture: $x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\varepsilon$ for "
        r"rising $t$. Between them, for $0 \le w \le 1$:",
        r"$a$ 和 $b$ 是两张图片的编码：VAE 取 $z = \mu_\phi(x)$；扩散模型取反着运行 DDIM 所到达的噪声 $x_T$：沿着增大的 $t$，"
        r"$x_t = \sqrt{\bar\alpha_t}\,\hat x_0 + \sqrt{1-\bar\alpha_t}\,\hat\varepsilon$。对 $0 \le w \le 1$，两者之间是：",
    )
    + r"""

$$\text{"""
    + both("straight line:", "直线：")
    + r"""}\quad (1-w)\,a + w\,b \qquad\qquad
\text{"""
    + both("along the sphere:", "沿球面：")
    + r"""}\quad \frac{\sin((1-w)\theta)}{\sin\theta}\,a + \frac{\sin(w\theta)}{\sin\theta}\,b,\quad
\cos\theta = \frac{a\cdot b}{\lVert a\rVert\,\lVert b\rVert}$$

"""
    + both(
        r"In many dimensions nearly all of $\mathcal N(0, I)$ lies close to a sphere. The middle of a straight line is "
        "far inside it, where the model has never been; hence the sphere. Where $a$ and $b$ have different lengths, the "
        "length moves evenly from one to the other.",
        r"在高维空间里，$\mathcal N(0, I)$ 的样本几乎都靠近一个球面。直线的中点深在球面之内，模型从未见过那里；"
        "所以要沿着球面走。$a$ 与 $b$ 长度不同时，长度从一端均匀变到另一端。",
    ),
}
