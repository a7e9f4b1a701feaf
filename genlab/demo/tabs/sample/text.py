"""The texts of the Sample tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.serving.language import both

TEXT = {
    "measured": both("What was measured of this model", "对这个模型的测量"),
    "title": both("Sample", "采样"),
    "lead": both(
        "Out of pure noise, step by step: pictures that nobody has ever drawn.",
        "从纯噪声出发，一步一步得到从未有人画过的图片。",
    )
    + notes("n1-1", "n1-5-reverse"),
    "empty": both("Press “Draw pictures”. They appear here while they form.", "点击“生成图片”，图片会在这里逐渐成形。"),
    "model": both("Model", "模型"),
    "label": both("Class", "类别"),
    "label_info": both("what to draw; “any” takes the classes in turn", "要生成什么；“任意”则各类轮流"),
    "label_none": both("this model was trained without classes", "这个模型训练时没有用类别"),
    "count": both("Number of pictures", "图片数量"),
    "steps": both("Steps", "步数"),
    "steps_info": both(
        "the last three samplers need few; the curve shows what more buy", "后三种方法只需很少几步；曲线显示增加步数的效果"
    ),
    "steps_few": both(
        "this model needs one: noise → picture; each more adds some noise and removes it again",
        "这个模型只需一步：噪声 → 图片；每多一步就加一点噪声再去掉",
    ),
    "steps_none": both("a VAE needs one: z → picture", "VAE 只需一步：z → 图片"),
    "sampler": both("Sampler", "采样方法"),
    "sampler_info": both(
        "ancestral draws fresh noise in every step, as in the notes; DDIM walks a fixed path; the others need fewer steps",
        "祖先采样每一步都抽新的噪声，与讲义一致；DDIM 走确定的路径；其余方法需要的步数更少",
    ),
    "guidance": both("Guidance w", "引导强度 w"),
    "guidance_info": both(
        "1: the plain model; more: closer to the class, less varied; twice the work",
        "1：模型本身；更大：更符合类别、更少变化，计算量加倍",
    ),
    "seed": both("Seed", "种子"),
    "seed_info": both(
        "picture i (from 0) has seed + i; the same seed gives the same pictures",
        "第 i 张（从 0 起）用种子 + i；种子相同，图片相同",
    ),
    "run": both("Draw pictures", "生成图片"),
    "stop": both("Stop", "停止"),
    "download": both("Download PNG", "下载 PNG"),
    "more": both("More", "更多选项"),
    "formula_title": both("The formula (notes 1.5)", "公式（讲义 1.5）"),
    "formula": both(r"From $x_T \sim \mathcal N(0, I)$ every step draws", r"从 $x_T \sim \mathcal N(0, I)$ 出发，每一步抽样")
    + r"""

$$p_\theta(x_{s}\mid x_t) = \mathcal N\big(\mu_\theta(x_t,t),\,\Sigma_\theta(x_t,t)\big),\qquad
\mu_\theta = \tilde\mu_t\big(x_t,\hat x_0\big),\quad
\hat x_0 = \frac{x_t - \sqrt{1-\bar\alpha_t}\,\hat\varepsilon}{\sqrt{\bar\alpha_t}}$$

"""
    + both(
        r"where the network predicts the noise $\hat\varepsilon = \varepsilon_\theta(x_t, t)$ in the picture. DDIM (Song et "
        r"al. 2021) leaves the chance out: $x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\varepsilon$. A "
        r"VAE (notes 1.4) needs one step: $z \sim \mathcal N(0, I)$, picture $= \mu(z)$.",
        r"其中 $\hat\varepsilon = \varepsilon_\theta(x_t, t)$ 是网络从图片中看出的噪声。DDIM（Song 等，2021）去掉随机性："
        r"$x_s = \sqrt{\bar\alpha_s}\,\hat x_0 + \sqrt{1-\bar\alpha_s}\,\hat\varepsilon$。VAE（讲义 1.4）只需一步："
        r"$z \sim \mathcal N(0, I)$，图片 $= \mu(z)$。",
    ),
    "formed": both("step {index} of {count} · t = {t}", "第 {index} 步，共 {count} 步 · t = {t}"),
    "noise": both("pure noise · t = {t}", "纯噪声 · t = {t}"),
    "vae": both("z ~ N(0, I) → μ(z), in one step", "z ~ N(0, I) → μ(z)，只需一步"),
}
