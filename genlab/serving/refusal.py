"""A request that is answered with an error, and the texts of such errors."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from genlab.serving.language import both, choose

FRAMES = "frame-ancestors 'self' https://huggingface.co https://*.hf.space"
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": FRAMES,
}
"""Headers of every reply."""
TEXT = {
    "too many": both("Too many requests: try again in {seconds} s.", "请求过于频繁，请 {seconds} 秒后再试。"),
    "jobs": both(
        "At most {most} jobs at a time: wait for one of yours to end.", "每人最多同时 {most} 个任务，请等待其中一个结束。"
    ),
    "full": both("The queue is full: try again in a few seconds.", "队列已满，请几秒后再试。"),
    "busy": both("The server is busy: try again in a few seconds.", "服务器正忙，请几秒后再试。"),
    "restarts": both("The server restarts: try again in a few seconds.", "服务器正在重启，请几秒后再试。"),
    "unheard": both(
        "This job was ended because nobody asked for its results. Start it again.",
        "这个任务因无人读取结果而被结束，请重新开始。",
    ),
    "too large": both("expected a body of at most {most} bytes", "请求内容过大，应不超过 {most} 字节"),
    "too slow": both("the body took more than {seconds} s", "请求内容没有在 {seconds} 秒内传完"),
    "open": both(
        "At most {most} open requests at a time: close one of your pages.", "每人最多同时 {most} 个连接，请关闭一个页面。"
    ),
    "ended": both("the body ended early", "请求内容不完整"),
    "failed": both("Something went wrong on the server.", "服务器出错了。"),
}
"""Errors that a visitor of the page can come to read; those that only a program can cause are in English."""


class Refused(Exception):
    """Raised for a request that is to be answered with an error.

    Args:
        status: HTTP status of the reply.
        detail: text for the visitor.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after = status, detail, retry_after

    @property
    def reason(self) -> str:
        """Why, in a word or two that hold nothing of the request: the key of its text, else what its status means."""
        said, form = choose(self.detail), r"\\\{\w+\\\}"
        texts = {key: re.sub(form, ".*", re.escape(choose(text))) for key, text in TEXT.items()}
        return next((key for key, text in texts.items() if re.fullmatch(text, said)), HTTPStatus(self.status).phrase.lower())

    @property
    def content(self) -> dict[str, Any]:
        """The reply's JSON; for 422 in the form whose message the page and gradio_client show unchanged."""
        if self.status == 422:
            return {"detail": [{"__type__": "validate", "is_valid": False, "message": self.detail}]}
        return {"detail": self.detail}
