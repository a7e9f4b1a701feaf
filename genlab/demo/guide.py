"""The guide: the notes' sections as short steps, each a question to a real tab that is set up for it.

A step is an address, ?tab=…&step=N, with what the tab is to be set to (`tabs/link.py`): so a teacher can link one, the browser
goes back by itself, and nothing is lost on the way. To add a step, add it to `STEPS`; `tests/test_guide.py` walks through all.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from genlab.serving.language import both

TEXT = {
    "begin": both('New here? <a href="{link}">Begin the guide</a>', '第一次来？<a href="{link}">从导览开始</a>'),
    "guide": both("Guide", "导览"),
    "place": both("Step {number} of {count}", "第 {number} 步，共 {count} 步"),
    "section": both("notes {section}", "讲义 {section}"),
    "do": both("Do.", "动手："),
    "look": both("Look.", "观察："),
    "show": both("Show me", "指给我看"),
    "up": both("↑ Step {number}", "↑ 第 {number} 步"),
    "answer": both("Answer", "答案"),
    "correction": both("Where the notes are loose.", "讲义不严谨之处："),
    "steps": both("All steps", "全部步骤"),
    "back": both("← Back", "← 上一步"),
    "next": both("Next →", "下一步 →"),
    "leave": both("Leave the guide", "离开导览"),
}


@dataclass(frozen=True)
class Step:
    """One step; every text but the query, the anchor and the selectors in both languages.

    Attributes:
        title: a few words; anchor: of its section in docs/notes.md.
        query: what the address has to say so that the tab is set up.
        mark: CSS selectors of what to press or drag, with commas between them; what comes first is led to.
        text: two or three sentences; do: what to do; look: the question; answer: opened by a click.
        correction: what the notes say too loosely; "" for nothing.
    """

    title: str
    anchor: str
    query: str
    mark: str
    text: str
    do: str
    look: str
    answer: str
    correction: str = ""


SAMPLE = "tab=sample&model=ddpm-mnist&label=any&count=16&sampler=DDIM&guidance=1&seed=0"
PROCESS = "tab=process&model=ddpm-mnist&picture_from=test+picture&picture=0&sampler=ancestral&label=any&seed=0"
VAE = "tab=vae&model=vae-mnist&picture=0&seed=0"
STEPS = (
    Step(
        both("A distribution to draw from", "可以从中采样的分布"),
        "n1-1",
        f"{SAMPLE}&steps=10",
        "#sample-run, #sample-seed-new",
        both(
            "A generative model is a distribution that was fitted to pictures, and that one can draw from. Here a DDPM "
            "turns noise "
            "into digits that nobody has written.",
            "生成模型是拟合到图片上的一个分布，可以从中采样。这里，一个 DDPM 把噪声变成从未有人写过的数字。",
        ),
        both(
            "Draw again with the same seed, then press “New seed” and draw.",
            "用同一个种子再生成一次；然后点“换一个种子”再生成。",
        ),
        both("What does a picture depend on?", "一张图片取决于什么？"),
        both(
            "On its noise alone: the same seed gives the same pictures, byte for byte.",
            "只取决于它的噪声：同一个种子给出逐字节相同的图片。",
        ),
        both(
            "Results can be measured: by likelihood, by distances of samples, and by the share of samples that are memorised.",
            "结果是可以度量的：似然、样本的距离，以及被记住的样本所占的比例。",
        ),
    ),
    Step(
        both("Cross entropy and KL divergence", "交叉熵与 KL 散度"),
        "n1-2-1",
        f"tab=divergence&p=0.5,0.25,0.125,0.0625,0.03125,0.03125&q={','.join(['0.166667'] * 6)}",
        "#outcomes, #outcomes-example",
        both(
            "The cross entropy H(p,q) is the mean length of a code that was made for q on data from p. What the wrong code "
            "costs is KL[p‖q] = H(p,q) − H(p), at least 0.",
            "交叉熵 H(p,q) 是：为 q 设计的编码用在来自 p 的数据上时的平均长度。用错编码的代价是 "
            "KL[p‖q] = H(p,q) − H(p)，它不小于 0。",
        ),
        both(
            "p has powers of ½ and q is uniform. Drag the bars of q; then choose the example “q forgets one” below.",
            "p 是 ½ 的幂，q 是均匀的。拖动 q 的柱子；再选下方的例子“q 漏掉一个”。",
        ),
        both(
            "What does the wrong code cost? Is it the same in both directions? And at q = 0?",
            "用错编码的代价是多少？两个方向相同吗？q = 0 时呢？",
        ),
        both(
            "p's own code takes 1.938 bits on average, that of the uniform q 2.585: KL[p‖q] is 0.647 bits, KL[q‖p] 0.748. "
            "A single outcome with q = 0 but p > 0 makes H(p,q) and KL[p‖q] infinite, while KL[q‖p] is only 0.046.",
            "为 p 设计的编码平均 1.938 比特，为均匀的 q 设计的要 2.585 比特：KL[p‖q] 为 0.647 比特，KL[q‖p] 为 0.748。"
            "只要有一个结果 q = 0 而 p > 0，H(p,q) 和 KL[p‖q] 就是无穷大，而 KL[q‖p] 只有 0.046。",
        ),
        both(
            "The least value of H(p,q) is the entropy H(p), at q = p, and not 0. Single terms of a KL divergence may be "
            "negative, their sum never is.",
            "H(p,q) 的最小值是熵 H(p)，在 q = p 处取得，而不是 0。KL 散度的单项可以为负，总和不会。",
        ),
    ),
    Step(
        both("Two directions, two fits", "两个方向，两种拟合"),
        "n1-3-2",
        "tab=divergence&weight=0.45&left_mean=-3&left_std=0.7&right_mean=3&right_std=1&start_mean=-1&start_std=0.7",
        "#divergence-run, #divergence-other",
        both(
            "Figure 1 of the notes: one Gaussian q for a p of two modes. Minimising KL[p‖q] is maximum likelihood.",
            "讲义的图 1：用一个高斯 q 拟合双峰的 p。使 KL[p‖q] 最小就是最大似然。",
        ),
        both("Press “Run both fits”, then “Mirror the start”.", "点“运行两种拟合”，再点“镜像起点”。"),
        both("Which fit depends on where it starts?", "哪一种拟合取决于起点？"),
        both(
            "The reverse one: it ends on the left mode, then on the right. The forward one ends both times at p's mean and "
            "standard "
            "deviation.",
            "反向拟合：先停在左峰，再停在右峰。前向拟合两次都停在 p 的均值和标准差上。",
        ),
        both(
            "Reverse KL picks one mode only where modes lie far apart: see the example “nearly one”.",
            "只有两峰相距较远时，反向 KL 才只选一个峰：看例子“几乎合一”。",
        ),
    ),
    Step(
        both("VAE: a picture through a few numbers", "VAE：一张图片变成几个数"),
        "n1-4",
        VAE,
        "#vae-canvas, #vae-latents",
        both(
            "The encoder gives a distribution of z for a picture; the decoder makes a picture from z.",
            "编码器对一张图片给出 z 的分布；解码器由 z 生成图片。",
        ),
        both("Draw on the first picture, then drag a z.", "在第一张图上画几笔，再拖动某个 z。"),
        both("How do μ′ and x̂ differ?", "μ′ 与 x̂ 有什么不同？"),
        both(
            "μ′ is the decoder's mean, x̂ a draw from p(x|z): the same picture with visible grain of σ′.",
            "μ′ 是解码器的均值，x̂ 是从 p(x|z) 中抽出的：同一张图片，加上看得见的颗粒 σ′。",
        ),
    ),
    Step(
        both("The ELBO and its gap", "ELBO 与它的差距"),
        "n1-4-elbo",
        VAE,
        "#vae-terms, #vae-another",
        both(
            "log p(x) cannot be computed; the ELBO is a lower bound. The gap is KL[q(z|x)‖p(z|x)].",
            "log p(x) 无法直接计算；ELBO 是它的下界，差距是 KL[q(z|x)‖p(z|x)]。",
        ),
        both("Read the bars; press “Another picture”.", "看条形图；点“换一张图片”。"),
        both("Which term costs more, and how large is the gap at least?", "哪一项代价更大？差距至少有多大？"),
        both(
            "The reconstruction: 1,046 nats for test picture 0, against 56 of KL. L₅₁₂ lies 13.4 nats above the ELBO, so the "
            "gap is at least that.",
            "重构：对测试图片 0 为 1046 奈特，KL 只有 56。L₅₁₂ 比 ELBO 高 13.4 奈特，所以差距至少这么大。",
        ),
        both(
            "log p(x) may fall while the ELBO rises, by at most as much as the gap shrinks.",
            "ELBO 上升时 log p(x) 也可能下降，但不会超过差距的减小量。",
        ),
    ),
    Step(
        both("Between two pictures", "两张图片之间"),
        "n1-4",
        "tab=interpolate&data=mnist&a_from=test+picture&a=0&b_from=test+picture&b=1&points=11&steps=20",
        "#interpolate-ends, #interpolate-run",
        both(
            "A path between two codes is a path between two pictures: through the VAE's z and through the DDPM's noise.",
            "两个编码之间的路径就是两张图片之间的路径：经过 VAE 的 z，以及经过 DDPM 的噪声。",
        ),
        both("Choose other pictures for A and B, and find the paths.", "为 A 和 B 换别的图片，再寻找路径。"),
        both("Which rows begin and end with the pictures themselves?", "哪几行的两端就是图片本身？"),
        both(
            "The DDPM's: its walk can be run backwards. The VAE's ends are its blurred reconstructions.",
            "DDPM 的那一行：它的行走可以倒着走。VAE 各行的两端是它的重构，比较模糊。",
        ),
    ),
    Step(
        both("Forward: noise is added", "前向：加入噪声"),
        "n1-5-forward",
        f"{PROCESS}&steps=50&start=the+noise+reached&until=500",
        "#diffusion-until, #diffusion-run",
        both(
            "A fixed chain adds noise, x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε. Here it goes up to t = 500, and the network leads back.",
            "一条固定的链逐步加噪：x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε。这里加到 t = 500，再由网络引回来。",
        ),
        both("Run it with “Noise up to t” at 100, 300, 700 and 1000.", "把“加噪到 t”设为 100、300、700、1000，分别运行。"),
        both("From which t on does another picture come back?", "从哪个 t 开始，回来的是另一张图片？"),
        both(
            "From 500, another 7; from 700 a 4, from 1000 a 0. Over 48 seeds a classifier finds a 7 in 48, 48, 45, 6 and 5 of "
            "those that come back from t = 100, 300, 500, 700 and 1000. With seed 0 they correlate with the picture by 1.00, "
            "0.96, 0.71, 0.27 and 0.32: details go first.",
            "从 500 起，是另一个 7；从 700 回来的是一个 4，从 1000 回来的是一个 0。48 个种子里，"
            "从 t = 100、300、500、700、1000 回来的图片中，分类器认出 48、48、45、6、5 个 7；"
            "种子为 0 时，它们与原图的相关系数为 1.00、0.96、0.71、0.27、0.32：先失去的是细节。",
        ),
        both(
            "q(x_t|x_{t−1}) and q(x_t|x_0) are two different Gaussians; the notes write one equality too many.",
            "q(x_t|x_{t−1}) 与 q(x_t|x_0) 是两个不同的高斯；讲义多写了一个等号。",
        ),
    ),
    Step(
        both("Reverse: steps of the network", "反向：网络的每一步"),
        "n1-5-reverse",
        f"{PROCESS}&steps=50&start=fresh+noise&until=1000",
        "#diffusion-frames .player, #diffusion-more, #diffusion-run",
        both(
            "Each step draws x_{t−1} from p_θ(x_{t−1}|x_t), a Gaussian around what the network takes for the picture, x̂_0.",
            "每一步从 p_θ(x_{t−1}|x_t) 抽出 x_{t−1}：一个高斯，其均值由网络估计的图片 x̂_0 决定。",
        ),
        both(
            "Step through the frames, by the slider or with ← and →. Then change the seed under “More” and run it again.",
            "拖动滑块，或用 ← 和 → 逐帧查看。再在“更多选项”里换一个种子，重新运行。",
        ),
        both("When is it decided which picture comes out?", "最后得到哪张图片，是在什么时候决定的？"),
        both(
            "Between t = 700 and 400. Down to 800, x̂_0 is the blurred mean of a class, which the seed chooses: over 48 seeds "
            "it correlates with the last picture by 0.67 at t = 1000, 0.68 at 800, 0.77 at 600, 0.86 at 500, 0.94 at 400, 0.97 "
            "at 300. Details come last.",
            "在 t = 700 到 400 之间。直到 800，x̂_0 都是某一类的模糊平均，类别由种子决定：48 个种子上，它与最后图片的平均"
            "相关系数在 t = 1000、800、600、500、400、300 处为 0.67、0.68、0.77、0.86、0.94、0.97。细节最后出现。",
        ),
        both(
            "The true reverse step is not Gaussian; with many small steps it nearly is.",
            "真正的反向步不是高斯分布；步子多而小的时候才近似是。",
        ),
    ),
    Step(
        both("The bound, step by step", "变分界：逐步来看"),
        "n1-5-bound",
        "tab=bound&model=ddpm-mnist&picture=0&seed=0&t=118",
        "#bound-ledger, #bound-canvas",
        both(
            "L_T + Σ L_{t−1} + L_0 bounds −log p(x_0). L_T and every L_{t−1} are KL divergences of two Gaussians.",
            "L_T + Σ L_{t−1} + L_0 是 −log p(x_0) 的上界；L_T 和每个 L_{t−1} 都是两个高斯的 KL 散度。",
        ),
        both(
            "Click a t in the curve, then a pixel of x_t: its two Gaussians are drawn below.",
            "在曲线上点一个 t，再在 x_t 上点一个像素：下方画出它的两个高斯。",
        ),
        both("At which t are most bits spent?", "哪些 t 花的比特最多？"),
        both(
            "Around t = 20, about 0.01 bits/dim a step; near t = 1000 next to nothing: almost all goes to detail.",
            "t = 20 附近，每步约 0.01 比特/维；t = 1000 附近几乎没有：几乎全都花在细节上。",
        ),
        both(
            "L_T and the L_{t−1} have least values above 0: no network reaches 0.",
            "L_T 与各个 L_{t−1} 的最小值大于 0：没有网络能达到 0。",
        ),
    ),
    Step(
        both("Few steps, or another sampler", "少走几步，或换一种采样方法"),
        "n1-5-reverse",
        "tab=compare"
        + "".join(
            f"&{side}_model=ddpm-mnist&{side}_label=any&{side}_steps={steps}&{side}_sampler=DDIM&{side}_variance=own"
            f"&{side}_guidance=1"
            for side, steps in (("a", 50), ("b", 4))
        )
        + "&seed=0",
        "#compare-b, #compare-run",
        both(
            "A walk may leave out times. The fewer steps, the more one step has to do. A and B begin with the same noise.",
            "行走可以跳过一些时刻。步数越少，每一步要做的就越多。A 与 B 从同一份噪声出发。",
        ),
        both(
            "Give B 1 step and press “Compare”. Then give B 50 steps and the sampler “ancestral”, and compare again.",
            "把 B 的步数设为 1，点“对比”。再把 B 设为 50 步、“祖先采样”，再对比一次。",
        ),
        both("When do the same pictures come out?", "什么时候得到的是同样的图片？"),
        both(
            "In 4 steps of DDIM: A and B differ by 22 gray levels. One step gives the blurred mean of each class, E[x_0|x_T], "
            "56 off: one Gaussian is a poor match for q(x_0|x_T). The ancestral sampler draws new noise in every step, so the "
            "same beginning leads to other digits of the same classes, 68 off.",
            "DDIM 走 4 步时：A 与 B 相差 22 个灰度级。1 步得到每一类的模糊平均 E[x_0|x_T]，相差 56：一个高斯远不能代替 "
            "q(x_0|x_T)。祖先采样每一步都抽新的噪声，所以从同一起点得到同一类的另一些数字，相差 68。",
        ),
    ),
    Step(
        both("Repair: a part decides the rest", "修补：由一部分补全其余"),
        "n1-5-reverse",
        "tab=condition&model=ddpm-mnist&mode=repair&picture=0&until=500&label=any&rounds=4&guidance=4&steps=25&seed=0",
        "#condition-canvas, #condition-run",
        both(
            "The network has never learned to mend. In every step the known part of x_t is drawn from q(x_t|x_0), and the "
            "network draws what is painted over.",
            "网络从未学过修补。每一步中，x_t 的已知部分从 q(x_t|x_0) 抽取，被遮住的部分由网络生成。",
        ),
        both(
            "See what four seeds make of the upper half. Then press “Clear”, paint over another part, and press “Draw”.",
            "看四个种子怎样补全上半部分。然后点“清空”，遮住另一部分，再点“生成”。",
        ),
        both("Is it the picture again that comes out?", "得到的还是原来的图片吗？"),
        both(
            "Its lower half is, pixel by pixel. Above it stand 7s and 9s: what is left of the 7 fits both. A part "
            "leaves a distribution of pictures, and each seed draws from it; over 48 seeds a classifier counts 40 7s.",
            "下半部分逐像素就是原图。上面补出的是 7 和 9：7 剩下的部分对两者都说得通。给定一部分，剩下的是图片的一个分布，"
            "每个种子从中抽取一张；48 个种子里，分类器数出 40 个 7。",
        ),
    ),
    Step(
        both("What is learned first?", "最先学会的是什么？"),
        "n1-5-reverse",
        "tab=training&model=from+scratch",
        "#training .player",
        both(
            "The same noise, drawn again at moments of a training: by the weights of the moment, and by their running average, "
            "which a finished model has.",
            "在一次训练的若干时刻，从同一份噪声重新生成：分别用当时的权重，和它们的滑动平均（训练完成的模型用的就是它）。",
        ),
        both(
            "Stop the film and step through it, by the slider or with ← and →.",
            "停下动画，拖动滑块，或用 ← 和 → 逐个时刻查看。",
        ),
        both(
            "In which order come strokes, the digit that was asked for (0 to 9, then 0 to 5), and the place of the ink?",
            "笔画、指定的数字（0 到 9，再 0 到 5）、墨迹的位置，按什么顺序出现？",
        ),
        both(
            "First the place of the ink: at step 32 the middle is 2.1 times as bright as the edge, in what is still grain. "
            "Then strokes, by step 184. Last the digit that was asked for: a classifier finds it in 1, 7, 10 and 14 of the 16 "
            "pictures at steps 77, 184, 439 and 1,048.",
            "先是墨迹的位置：第 32 步时，中间的亮度是边缘的 2.1 倍，而画面还只是颗粒。然后是笔画，到第 184 步。"
            "最后才是指定的数字：第 77、184、439、1,048 步时，分类器在 16 张图片中认出 1、7、10、14 张。",
        ),
    ),
    Step(
        both("The score", "分数"),
        "n2-walks",
        "tab=score&data=gaussians&t=25&walk=none&seed=0",
        "#score-langevin, #score",
        both(
            "The arrows point to where noisy data are: s = ∇ log q(x_t). A walk along them with some noise draws from q(x_t).",
            "箭头指向带噪数据所在之处：s = ∇ log q(x_t)。沿箭头走、再加一点噪声，就是从 q(x_t) 采样。",
        ),
        both("Press “Langevin walk”; then drag t down to 3 and press it again.", "点“朗之万行走”；再把 t 拖到 3，再点一次。"),
        both("Under the exact score, do the particles change their mode?", "在精确的分数下，粒子会换到别的峰吗？"),
        both(
            "At t = 3 hardly: after 80 steps 4 % are near another mode than at first. At t = 25 it is 84 %, nearly as by "
            "chance (88 %): that is why one starts with much noise.",
            "t = 3 时几乎不会：80 步之后，4% 的粒子靠近别的峰。t = 25 时是 84%，几乎和随机一样（88%）：所以要从大的噪声开始。",
        ),
        both("The notes have only the heading of this section.", "讲义的这一节只有标题。"),
    ),
    Step(
        both("Flow matching: straight lines", "流匹配：直线"),
        "n2-flow",
        "tab=playground&data=moons&model=flow+matching&steps=1500&seed=0",
        "#playground-train, #playground",
        both(
            "Mix points and noise on straight lines and learn their mean velocity. Section 2 leads here today; it is a "
            "diffusion model "
            "in another time.",
            "把点与噪声在直线上混合，学习平均速度。第 2 节的思路发展到今天就是流匹配；它其实是换了时间变量的扩散模型。",
        ),
        both(
            "Press “Train”; then watch “forward” and “reverse” in “what the model makes”.",
            "点“训练”，然后在“模型生成的点”中看“前向”和“反向”两段。",
        ),
        both("Which paths are straight?", "哪些路径是直的？"),
        both(
            "The forward ones. Back, paths bend where lines cross, and the loss stays near 0.58: no velocity fits all "
            "lines through a "
            "point.",
            "前向的。反向时，在直线相交处路径是弯的；损失停在 0.58 附近：没有一个速度能符合经过同一点的所有直线。",
        ),
    ),
)
MODELS = ("ddpm-mnist", "vae-mnist")
"""Models that the steps ask for."""


def address(number: int) -> str:
    """Return the relative address of a step, from 1."""
    return f"?{STEPS[number - 1].query}&step={number}"


def offered(served: Collection[str]) -> bool:
    """Return True if the models that the steps ask for are served."""
    return set(MODELS) <= set(served)


def begin() -> str:
    """Return the invitation to the guide, as HTML: gradio opens links in Markdown in another window."""
    return TEXT["begin"].format(link=address(1))


def step_of(query: Mapping[str, str]) -> int | None:
    """Return the step that an address names, or None."""
    text = query.get("step", "")
    return int(text) if re.fullmatch(r"\d{1,2}", text, re.ASCII) and 1 <= int(text) <= len(STEPS) else None


def subscripts(text: str) -> str:
    """Return a text as HTML whose x_t and x_{t−1} have real subscripts."""
    return re.sub(r"_(\{(.+?)\}|.)", lambda found: f"<sub>{found[2] or found[1]}</sub>", text)


def html(number: int) -> str:
    """Return a step, from 1, as HTML."""
    step, count = STEPS[number - 1], len(STEPS)
    section = ".".join(re.findall(r"\d+", step.anchor))
    account = both(f"docs/notes.md#{step.anchor}", f"docs/notes.zh.md#{step.anchor}")
    link = f'<a href="{account}">{TEXT["section"].format(section=section)}</a>'
    correction = f"<p><b>{TEXT['correction']}</b> {subscripts(step.correction)}</p>" if step.correction else ""
    back = f'<a href="{address(number - 1)}">{TEXT["back"]}</a>' if number > 1 else "<span></span>"
    forward = f'<a href="{address(number + 1)}">{TEXT["next"]}</a>' if number < count else f'<a href="./">{TEXT["leave"]}</a>'
    entries = "".join(
        f'<li><a href="{address(i)}"{" aria-current=step" if i == number else ""}>{each.title}</a></li>'
        for i, each in enumerate(STEPS, 1)
    )
    act = f"<b>{TEXT['do']}</b> {subscripts(step.do)}"
    show = f'<button type="button" data-to="{step.mark.partition(",")[0]}">{TEXT["show"]}</button>'
    look = f"<b>{TEXT['look']}</b> {subscripts(step.look)}"
    return f"""<style>.genlab-begin, .genlab-served {{ display: none; }}
.gradio-container {{ padding-bottom: 10rem; }}
{step.mark} {{ outline: 3px solid var(--genlab-kl); outline-offset: 4px; border-radius: 8px; scroll-margin-top: 16px; }}
.form > :is({step.mark}) {{ outline-offset: -3px; }}</style>
<section class="genlab-guide" aria-label="{TEXT["guide"]}">
<h2>{step.title}</h2><p class="place">{TEXT["place"].format(number=number, count=count)} · {link}</p>
<p>{subscripts(step.text)}</p><p class="do">{act} {show}</p><p>{look}</p>
<details><summary>{TEXT["answer"]}</summary><p>{subscripts(step.answer)}</p>{correction}</details>
<nav>{back}<details><summary>{TEXT["steps"]}</summary><ol>{entries}</ol>
<p><a href="./">{TEXT["leave"]}</a></p></details>{forward}</nav>
</section>
<aside class="genlab-guide bar" aria-label="{TEXT["guide"]}" hidden><p>{act}</p><p>{look}</p>
<button type="button" data-to=".genlab-guide">{TEXT["up"].format(number=number)}</button></aside>"""
