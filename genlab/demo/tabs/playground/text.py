"""The texts of the Playground tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.demo.tabs.playground.request import DRAWING
from genlab.serving.language import both

TEXT = {
    "title": both("Playground", "实验场"),
    "lead": both(
        "Choose or draw points, train a model on them here and now, and watch its samples come to lie where the points are.",
        "选一组点，或自己画，当场训练一个模型，看它的样本怎样一步步落到这些点所在的地方。",
    )
    + notes("n1-4", "n1-5", "n2"),
    "train": both("Train", "训练"),
    "stop": both("Stop", "停止"),
    "reset": both("Reset", "重置"),
    "again": both("Run it again, with other noise", "换一份噪声再运行"),
    "data": both("Data", "数据"),
    DRAWING: both("your drawing", "自己画"),
    "model": both("Model", "模型"),
    "model_info": both("DDPM and score model are one network, used in two ways", "DDPM 与分数模型是同一个网络，两种用法"),
    "walk": both("Way back of the score model", "分数模型的反向方式"),
    "walk_other": both("only the score model has a choice", "只有分数模型可以选择"),
    "steps": both("Steps of learning", "学习步数"),
    "steps_info": both("{seconds} s at most, whatever you ask for", "无论多少步，最多 {seconds} 秒"),
    "seed": both("Seed", "种子"),
    "seed_info": both(
        "of weights, batches and noise: the same seed and as many steps taken, the same result",
        "权重、批次与噪声的种子：种子与实际走完的步数相同，结果就相同",
    ),
    "link": both("Link to this", "分享链接"),
    "link_label": both("Opens the page like this", "这样打开本页"),
    "board": both("Data: choose below, or draw here", "数据：在下面选择，或在这里画"),
    "learning": both("The model while it learns", "学习中的模型"),
    "samples": both("samples", "样本"),
    "noisy": both("x_t", "x_t"),
    "latent": both("z", "z"),
    "points": both("data", "数据"),
    "score": both("ŝ(x_t, t), scaled by (1−ᾱ_t)", "ŝ(x_t, t)，按 (1−ᾱ_t) 缩放"),
    "stage": both("what the model makes", "模型生成的点"),
    "loss DDPM": both("loss L_{simple}", "损失 L_{simple}"),
    "loss score model": both("loss L_{simple}", "损失 L_{simple}"),
    "loss flow matching": both("loss ½ E‖u − û‖²", "损失 ½ E‖u − û‖²"),
    "loss VAE": both("loss −ELBO, nats", "损失 −ELBO，奈特"),
    "loss axis": both("step", "步"),
    "ready": both("Press “Train”: the samples move while the model learns.", "点击“训练”：模型学习时样本会移动。"),
    "step zero": both("beginning", "开始"),
    "waiting": both("waiting for other trainings to end: {before}", "等待另外 {before} 个训练"),
    "step": both(
        "step {step} of {steps} · loss {loss} · {seconds} s", "第 {step} 步，共 {steps} 步 · 损失 {loss} · {seconds} 秒"
    ),
    "learned": both("learning", "学习"),
    "forward": both("forward", "前向"),
    "reverse": both("reverse", "反向"),
    "forward t": both("forward: noise is added, t = {t}", "前向：加入噪声，t = {t}"),
    "DDPM t": both("reverse: each step drawn from p_θ, t = {t}", "反向：每一步从 p_θ 抽样，t = {t}"),
    "score model t": both("reverse: along ŝ by {walk}, t = {t}", "反向：沿 ŝ，{walk}，t = {t}"),
    "straight s": both("forward: on a straight line to noise, s = {s}", "前向：沿直线走向噪声，s = {s}"),
    "velocity s": both("reverse: along the velocity û, s = {s}", "反向：沿速度 û，s = {s}"),
    "walk reverse SDE": both("the reverse SDE", "反向 SDE"),
    "walk flow": both("the flow ODE", "概率流 ODE"),
    "walk Langevin": both("annealed Langevin dynamics", "退火朗之万动力学"),
    "encoding": both("encoding: every point moves to its z ~ q(z|x)", "编码：每个点移到它的 z ~ q(z|x)"),
    "latents": both("z ~ q(z|x): together near the prior N(0, I)", "z ~ q(z|x)：合起来接近先验 N(0, I)"),
    "prior": both("fresh z ~ N(0, I)", "新的 z ~ N(0, I)"),
    "decoding": both("decoding: every z moves to its μ′(z)", "解码：每个 z 移到它的 μ′(z)"),
    "drawn x": both("x̂ ~ p(x|z): with the decoder's noise σ′ = {sigma}", "x̂ ~ p(x|z)：加上解码器的噪声 σ′ = {sigma}"),
    "description": both(
        "{model} on {data}: {count} samples over the data, and the loss of every step.",
        "{model}，数据为 {data}：{count} 个样本与数据，以及每一步的损失。",
    ),
    "formula_title": both("The formula (notes 1.4, 1.5, 2)", "公式（讲义 1.4、1.5、2）"),
    "formula": both(
        "The models are those of the other tabs; a picture is a point in 784 dimensions, here it is one in two. **DDPM** and "
        r"**score model** learn by one loss (the network's output is $v$, a rotation of $\varepsilon$ and $x_0$) and differ in "
        r"the way back: down the chain of $p_\theta$, or along $\hat s$. **Flow matching** learns the velocity $u$ of straight "
        r"paths $x_s = (1-s)x_0 + s\varepsilon$, and goes back along it. The **VAE** raises its ELBO:",
        r"模型与其他各页相同；一张图片是 784 维空间中的一个点，这里是二维的点。**DDPM** 与**分数模型**用同一个损失学习"
        r"（网络的输出是 $v$，即 $\varepsilon$ 与 $x_0$ 的一个旋转），区别在于反向：沿 $p_\theta$ 的链往回走，"
        r"或者沿 $\hat s$ 走。**流匹配**学习直线路径 $x_s = (1-s)x_0 + s\varepsilon$ 的速度 $u$，并沿它往回走。"
        "**VAE** 则提高它的 ELBO：",
    )
    + r"""

$$L_{\text{simple}} = \tfrac12\,\mathbb E\,\|v - \hat v(x_t,t)\|^2,\quad
v = \sqrt{\bar\alpha_t}\,\varepsilon - \sqrt{1-\bar\alpha_t}\,x_0,\qquad
\hat s = -\frac{\hat\varepsilon}{\sqrt{1-\bar\alpha_t}}$$

$$L_{\text{flow}} = \tfrac12\,\mathbb E\,\|u - \hat u(x_s,s)\|^2,\quad u = \varepsilon - x_0$$

$$-\text{ELBO} = -\mathbb E_q[\log p(x\mid z)] + \mathrm{KL}[q(z\mid x)\,\|\,p(z)]$$
""",
}

NAMES = {
    "DDPM": both("DDPM", "DDPM（扩散）"),
    "score model": both("score model", "分数模型"),
    "flow matching": both("flow matching", "流匹配"),
    "VAE": both("VAE", "VAE（变分自编码器）"),
    "reverse SDE": both("reverse SDE", "反向 SDE"),
    "flow": both("flow ODE", "概率流 ODE"),
    "Langevin": both("Langevin", "朗之万"),
}
