"""The texts of the Compare tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

PANES = ("A", "B", "|A − B|")
TEXT = {
    "title": both("Compare", "对比"),
    "lead": both(
        "Two ways to draw from the same noise, on one scrubber: what does a choice change, and what does it leave?",
        "同一份噪声、两种画法、一个进度条：一个选择改变了什么，又保留了什么？",
    )
    + notes("n1-5-reverse"),
    "empty": both("Press “Compare”: both sides form here.", "点击“对比”，两边会在这里成形。"),
    "run": both("Compare", "对比"),
    "stop": both("Stop", "停止"),
    "model": both("Model", "模型"),
    "label": both("Class", "类别"),
    "steps": both("Steps", "步数"),
    "sampler": both("Sampler", "采样方法"),
    "variance": both("Σ of the ancestral step", "祖先采样的 Σ"),
    "guidance": both("Guidance w", "引导强度 w"),
    "more": both("Guidance and Σ", "引导强度与 Σ"),
    "seed": both("Seed of both", "两边共同的种子"),
    "caption": both(
        "t = {percent} % of T · A and B differ by {rms} gray levels (root mean square)",
        "t = T 的 {percent}% · A 与 B 相差 {rms} 个灰度级（均方根）",
    ),
    "same": both("Both began with the same noise.", "两边从同一份噪声出发。"),
    "other": both(
        "The noise is not the same: a picture of A begins with {a} numbers, one of B with {b}; only the seeds are.",
        "噪声并不相同：A 的一张图片从 {a} 个数出发，B 的从 {b} 个数出发；相同的只有种子。",
    ),
    "formula_title": both("What to try", "可以试试"),
    "formula": both(
        """- **Steps**: DDIM in 50 and in 4 steps solves one equation, the flow ODE, finely and coarsely: the picture stays.
- **Sampler**: DDIM and ancestral. The ancestral sampler draws fresh noise in every step: another picture.
- **Model**: a DDPM by DDIM and the consistency function that was distilled from it in one step: where does noise lead?
- **Guidance**: w = 1 and w = 4 of one class: what becomes typical, what is lost?""",
        """- **步数**：DDIM 走 50 步和 4 步解的是同一个方程（流 ODE），一个细、一个粗：图片不变。
- **采样方法**：DDIM 与祖先采样。祖先采样每一步都抽新的噪声：得到另一张图片。
- **模型**：DDPM 用 DDIM 采样，对比由它蒸馏出的一致性函数走一步：同一份噪声通向哪里？
- **引导强度**：同一类别取 w = 1 与 w = 4：什么变得典型，什么丢失了？""",
    ),
    "own": both("the model's own", "模型自己的"),
    "posterior": "β̃",
    "beta": "β",
}
