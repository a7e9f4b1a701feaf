"""Why a model cannot be loaded, in both languages: what `package.py` and `hub.py` say, with the Chinese of each form.

`tests/test_language.py` reads the forms there; none that a visitor may see lacks its Chinese.
"""

from __future__ import annotations

from genlab.package import ModelError
from genlab.serving.language import both

CHINESE: dict[str, str] = {
    "{source}: {error}": "{source}：{error}",
    "{source} is a folder: expected no revision, got {revision}": "{source} 是文件夹：不应带版本，实际为 {revision}",
    "no model {source!r}: expected an existing folder, one of {shipped}, or user/name or user/name@revision on the Hub": (
        "没有模型 {source!r}：应为已有的文件夹、{shipped} 之一，或 Hub 上的 user/name 或 user/name@revision"
    ),
    "{source}: expected one revision, got {one} and {other}": "{source}：应只有一个版本，实际为 {one} 和 {other}",
    "{repo_id}: expected a branch, tag or commit, got {got!r:.100}": "{repo_id}：应为分支、标签或提交，实际为 {got!r:.100}",
    "expected config.json and model.safetensors, got no {name}; genlab reads no other format": (
        "应有 config.json 和 model.safetensors，缺少 {name}；genlab 不读取其他格式"
    ),
    "{name}: expected at most {most:,} bytes, got {got:,}": "{name}：应不超过 {most:,} 字节，实际为 {got:,}",
    "{source}: cannot be read ({reason})": "{source}：无法读取（{reason}）",
    "{name}: expected JSON, got other content ({reason})": "{name}：应为 JSON，实际为其他内容（{reason}）",
    "{name}: expected a JSON object, got {got}": "{name}：应为 JSON 对象，实际为 {got}",
    "metrics.json: {where}: expected {wanted}, got {got!r:.100}": (
        "metrics.json：{where}：应为 {wanted} 类型，实际为 {got!r:.100}"
    ),
    "config.json: genlab: expected a version, got {got!r:.100}": "config.json：genlab：应为版本号，实际为 {got!r:.100}",
    "config.json: kind: expected one of {kinds}, got {got!r:.100}": (
        "config.json：kind：应为 {kinds} 之一，实际为 {got!r:.100}"
    ),
    "{where}: expected the key {key!r}, which is missing": "{where}：缺少应有的键 {key!r}",
    "{where}: unknown key {key!r:.100}; a newer genlab may know it": (
        "{where}：不认识键 {key!r:.100}；更新版本的 genlab 也许认识"
    ),
    "config.json: {where}: expected an object, got {got!r:.100}": "config.json：{where}：应为对象，实际为 {got!r:.100}",
    "config.json: {where}: {reason}": "config.json：{where}：值不合要求（{reason}）",
    "config.json: {where}: expected a list, got {got!r:.100}": "config.json：{where}：应为列表，实际为 {got!r:.100}",
    "config.json: {where}: expected {wanted}, got {got!r:.100}": (
        "config.json：{where}：应为 {wanted} 类型，实际为 {got!r:.100}"
    ),
    "model.safetensors: expected a header of at most {most:,} bytes, got {got:,}": (
        "model.safetensors：文件头应不超过 {most:,} 字节，实际为 {got:,}"
    ),
    "{name}: expected float32 or float16, got {got!r:.20}": "{name}：应为 float32 或 float16，实际为 {got!r:.20}",
    "model.safetensors: expected a safetensors file, got other content": (
        "model.safetensors：应为 safetensors 文件，实际为其他内容"
    ),
    "config.json: {reason}": "config.json：值不合要求（{reason}）",
    "config.json: expected at most {most:,} parameters, got {got:,}": "config.json：参数应不超过 {most:,} 个，实际为 {got:,}",
    "{name}: expected this tensor in model.safetensors, which lacks it": "{name}：model.safetensors 里缺少这个张量",
    "model.safetensors: unexpected tensor {name!r:.100}": "model.safetensors：多出张量 {name!r:.100}",
    "{name}: expected shape {shape}, got {got}": "{name}：形状应为 {shape}，实际为 {got}",
    "model.safetensors: expected a safetensors file, got a damaged one ({reason})": (
        "model.safetensors：safetensors 文件已损坏（{reason}）"
    ),
    "{name}: expected finite weights, got nan or inf": "{name}：权重应为有限的数，实际有 nan 或 inf",
    "expected examples.json and examples.png together, got one of them": (
        "examples.json 和 examples.png 应同时存在，实际只有其中一个"
    ),
    "examples.json: {name}: expected a whole number from 1 to {most}, got {got!r:.100}": (
        "examples.json：{name}：应为 1 到 {most} 的整数，实际为 {got!r:.100}"
    ),
    "examples.json: labels: expected {count} whole numbers below {classes}, -1 for none, or null": (
        "examples.json：labels：应为 {count} 个小于 {classes} 的整数（-1 表示没有），或 null"
    ),
    "examples.png: expected {mode} of {side}, got {got} of {size}": (
        "examples.png：应为 {side} 的 {mode} 图片，实际为 {size} 的 {got}"
    ),
    "examples.png: expected a PNG, got a damaged or other file": "examples.png：应为 PNG，实际是损坏的或其他文件",
    "{repo_id} is no genlab model: expected config.json and model.safetensors, got no {name}": (
        "{repo_id} 不是 genlab 的模型：应有 config.json 和 model.safetensors，缺少 {name}"
    ),
    "{repo_id}: {name} arrived damaged twice: its content is not what the Hub states. "
    "Try again later, or from another network": (
        "{repo_id}：{name} 两次下载都已损坏：内容与 Hub 声明的不符。请稍后再试，或换一个网络"
    ),
    "{repo_id} is gated: accept its conditions at {hub}/{repo_id}, then run `hf auth login`": (
        "{repo_id} 需要先同意条款：在 {hub}/{repo_id} 接受，然后运行 `hf auth login`"
    ),
    "no folder and no model {repo_id} on the Hub, or it is private: check the name, "
    "or run `hf auth login` with a token that sees it": (
        "没有文件夹 {repo_id}，Hub 上也没有这个模型，或者它是私有的：请检查名称，或用有权查看它的令牌运行 `hf auth login`"
    ),
    "{repo_id} has no revision {revision}: look at {hub}/{repo_id}/commits/main": (
        "{repo_id} 没有版本 {revision}：见 {hub}/{repo_id}/commits/main"
    ),
    "{repo_id}: a file of the model is gone from the Hub: try again": "{repo_id}：模型的一个文件已不在 Hub 上：请重试",
    "the Hub does not accept your token: run `hf auth login` with a valid one (HF_TOKEN, where set, goes first)": (
        "Hub 不接受这个令牌：请用有效的令牌运行 `hf auth login`（若设置了 HF_TOKEN，以它为准）"
    ),
    "your Hub token does not allow this for {repo_id}: use one that may write, or change --repo-id": (
        "这个 Hub 令牌没有 {repo_id} 所需的权限：请换用有写入权限的令牌，或更改 --repo-id"
    ),
    "{repo_id} was changed by somebody else at the same moment: push again": "{repo_id} 同时被别人更改：请重新推送",
    "the Hub refuses files of this size for {repo_id}": "Hub 不接受 {repo_id} 的这么大的文件",
    "the Hub asks for patience (too many requests): try again in some minutes": "Hub 要求等待（请求过多）：请过几分钟再试",
    "the Hub at {hub} answered with error {status}: try again later": "{hub} 的 Hub 返回错误 {status}：请稍后再试",
    "expected user/name, got {repo_id!r}": "应为 user/name，实际为 {repo_id!r}",
    "{repo_id} is not in the cache and HF_HUB_OFFLINE is set: unset it": (
        "{repo_id} 不在缓存里，而且设置了 HF_HUB_OFFLINE：请取消该设置"
    ),
    "the Hub at {hub} cannot be reached, and {repo_id} is not in the cache: check the connection": (
        "无法连接 {hub} 的 Hub，{repo_id} 也不在缓存里：请检查网络"
    ),
    "{repo_id}: {reason}": "{repo_id}：{reason}",
    "{repo_id}: the Hub could not be used ({reason}): try again": "{repo_id}：无法使用 Hub（{reason}）：请重试",
}
"""What a `ModelError` says → the same in Chinese."""
TEXT = {"unexpected": both("unexpected error, {kind}: {reason}", "意外错误 {kind}：{reason}")}


def told(error: Exception) -> str:
    """Why a model could not be loaded, as a text in both languages."""
    if not isinstance(error, ModelError):
        return TEXT["unexpected"].format(kind=type(error).__name__, reason=error)
    return both(str(error), _chinese(error))


def _chinese(error: ModelError) -> str:
    values = {name: _chinese(value) if isinstance(value, ModelError) else value for name, value in error.values.items()}
    form = CHINESE.get(error.text, error.text)
    return form.format(**values) if values else form
