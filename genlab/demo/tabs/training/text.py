"""The texts of the Training tab."""

from __future__ import annotations

from genlab.demo.documents import notes
from genlab.demo.tabs.training.compute import SHIPPED
from genlab.serving.language import both

PANES = (both("weights of the moment", "当时的权重"), both("averaged weights", "平均权重"))
TEXT = {
    "title": both("Training", "训练"),
    "lead": both(
        "A training, replayed: at each moment the same noise is drawn again. What is learned first?",
        "回放一次训练：每个时刻都从同一份噪声重新生成。最先学会的是什么？",
    )
    + notes("n1-5-reverse"),
    "model": both("Model", "模型"),
    SHIPPED: both("a small DDPM of MNIST, from scratch", "一个小的 MNIST DDPM，从头训练"),
    "figure": both("Loss, bound and distance during the training", "训练中的损失、界与距离"),
    "caption": both(
        "step {step} · {images} pictures seen · {epoch} epochs", "第 {step} 步 · 已看 {images} 张图片 · {epoch} 轮"
    ),
    "images": both("pictures seen", "看过的图片数"),
    "loss": both("loss", "损失"),
    "in training": both("in training", "训练中"),
    "of last": both("held out, weights of the moment", "留出图片，当时的权重"),
    "of average": both("held out, averaged weights", "留出图片，平均权重"),
    "bound": both("bound on −log p, bits/dim", "−log p 的上界，比特/维"),
    "distance": both("Fréchet distance", "Fréchet 距离"),
    "real": both("real pictures", "真实图片"),
    "losses": both(
        "loss {average} with averaged weights, {last} with those of the moment ({images} held-out pictures)",
        "损失：平均权重 {average}，当时的权重 {last}（{images} 张留出图片）",
    ),
    "bits": both("bound {bits} ± {error} bits/dim ({images} pictures)", "上界 {bits} ± {error} 比特/维（{images} 张图片）"),
    "frechet": both(
        "distance {distance}, of real pictures {floor} ({images} each)", "距离 {distance}，真实图片为 {floor}（各 {images} 张）"
    ),
    "formula_title": both("What is measured", "测量的是什么"),
    "formula": both(
        """- **Averaged weights** are the running mean of the weights of all steps so far; they are those of a finished model.
- **Loss**: what the training minimises; for a DDPM it is nearly the mean squared error of the prediction.
- **Bound** on −log p of held-out pictures: lower is better. **Distance** of samples from held-out pictures: likewise.
- Both are of the averaged weights. `--replay 10` of the training scripts keeps such moments: [Training](docs/training.md).""",
        """- **平均权重**是到此刻为止每一步权重的滑动平均；训练完成的模型用的就是它。
- **损失**：训练要减小的量；对 DDPM 来说，基本上是预测的均方误差。
- 留出图片 −log p 的**上界**：越小越好。样本与留出图片的**距离**：同样越小越好。
- 两者都用平均权重测量。训练脚本的 `--replay 10` 会保存这样的时刻。""",
    ),
}
