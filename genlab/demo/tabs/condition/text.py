"""The texts of the Condition tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.demo.tabs.condition.request import CLASS, DRAWING, REPAIR
from genlab.serving.language import both

MODES = {
    REPAIR: both("Repair a picture", "修补图片"),
    DRAWING: both("Start from a drawing", "从涂鸦出发"),
    CLASS: both("Ask for a class", "指定类别"),
}
PANES = ("x_t", "x̂_0")
WAYS = (both("classifier's gradient", "分类器的梯度"), both("classifier-free", "无分类器引导"), both("no class", "不指定类别"))

TEXT = {
    "title": both("Condition", "条件生成"),
    "lead": both(
        "The model was trained to draw, not to mend: yet it fills in what you paint over, finishes your drawing, and follows a "
        "classifier.",
        "模型只学过生成，没有学过修补；但它能补全你遮住的部分，把涂鸦变成图片，还能听从分类器的指引。",
    )
    + notes("n1-5-reverse", "n2"),
    "none": both("No diffusion model is served here.", "这里没有加载扩散模型。"),
    "empty": both("Press “Draw”: four pictures form here.", "点击“生成”：四张图片会在这里成形。"),
    "run": both("Draw", "生成"),
    "stop": both("Stop", "停止"),
    "mode": both("What to do", "做什么"),
    "canvas": both("The picture to condition on", "作为条件的图片"),
    "hint": both("Paint over what is to be made anew.", "遮住要重新生成的部分。"),
    "hint_drawing": both("Clear, and draw something.", "先清空，再画点什么。"),
    "model": both("Model", "模型"),
    "number": both("Test picture", "测试图片"),
    "another": both("Another picture", "换一张图片"),
    "label": both("Class", "类别"),
    "label_info": both("“any”: the picture alone decides", "“任意”：只由图片决定"),
    "until": both("Noise up to t, and back", "加噪到 t，再返回"),
    "until_info": both(
        "small: your drawing stays as it is; large: the model draws what it likes", "小：基本保留你的画；大：模型自由发挥"
    ),
    "rounds": both("Rounds of each stretch", "每段重复的次数"),
    "rounds_info": both(
        "1: the new part hardly fits the old one; more: it does, for as many times the work",
        "1：新的部分与原图不太吻合；更多：更吻合，计算量成倍增加",
    ),
    "weight": both("Guidance w", "引导强度 w"),
    "weight_info": both("0: no class; 1: Bayes' rule; more: sharper", "0：不指定类别；1：贝叶斯公式；更大：更强烈"),
    "steps": both("Steps", "步数"),
    "seed": both("Seed", "种子"),
    "start": both("noise to start from · t = {t}", "起点的噪声 · t = {t}"),
    "formed": both("step {index} of {count} · t = {t}", "第 {index} 步，共 {count} 步 · t = {t}"),
    "repaired": both(
        "four pictures that agree with what was left, every known pixel exactly", "四张与露出部分一致的图片，已知像素逐一相同"
    ),
    "drawn": both("four pictures from your drawing at t = {until}", "从你的画（t = {until}）得到的四张图片"),
    "guided": both(
        "what the classifier gives to the class, on average: gradient {gradient} · classifier-free {free} · no class {none}",
        "分类器给这个类别的平均概率：梯度 {gradient} · 无分类器 {free} · 不指定 {none}",
    ),
    "formula_title": both("The formulas", "公式"),
    "formula": both(
        r"**Repair** (RePaint; Lugmayr et al. 2022). With $m=1$ where the picture is known, every step takes",
        r"**修补**（RePaint；Lugmayr 等，2022）。在已知处 $m=1$，每一步取",
    )
    + r"""

$$x_s = m\odot x_s^{\text{known}} + (1-m)\odot x_s^{\text{model}},\qquad
x_s^{\text{known}}\sim q(x_s\mid x_0),\quad x_s^{\text{model}}\sim p_\theta(x_s\mid x_t)$$

"""
    + both(
        r"The model drew its part before it met the known one, so a stretch of steps is walked several times, with "
        r"$q(x_t|x_s)$ leading back up in between. **A drawing** (SDEdit; Meng et al. 2022) is noised to "
        r"$x_t\sim q(x_t|x_0)$, and the reverse process starts there. **A class** $y$, by Bayes' rule "
        r"(Dhariwal & Nichol 2021):",
        r"模型生成自己那部分时还没有见到已知的部分，所以每一段要走几遍，其间由 $q(x_t|x_s)$ 退回去。"
        r"**涂鸦**（SDEdit；Meng 等，2022）先加噪到 $x_t\sim q(x_t|x_0)$，反向过程从那里开始。"
        r"**类别** $y$ 由贝叶斯公式给出（Dhariwal & Nichol，2021）：",
    )
    + r"""

$$\hat\varepsilon \leftarrow \hat\varepsilon - w\sqrt{1-\bar\alpha_t}\;\nabla_{x_t}\log p(y\mid x_t),\qquad
\log p(y\mid x_t)\approx\log p\big(y\mid\hat x_0(x_t)\big)$$

"""
    + both(
        r"Classifier-free guidance has the same gradient from the network itself: "
        r"$\hat\varepsilon(y)-\hat\varepsilon(\varnothing)$ in the place of $-\sqrt{1-\bar\alpha_t}\,\nabla\log p(y|x_t)$.",
        r"无分类器引导用网络自身得到同一个梯度：用 $\hat\varepsilon(y)-\hat\varepsilon(\varnothing)$ 代替 "
        r"$-\sqrt{1-\bar\alpha_t}\,\nabla\log p(y|x_t)$。",
    ),
}
