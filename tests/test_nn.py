"""What the networks share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genlab import nn


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    monkeypatch.delenv("GENLAB_BF16")
    nn.computes_bf16.cache_clear()
    yield
    nn.computes_bf16.cache_clear()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_fp16\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vbmi2\n", False),
    ],
)
def test_pictures_are_drawn_in_bf16_where_the_cpu_says_that_it_computes_in_it(monkeypatch, said: str, expected: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: said)
    assert nn.computes_bf16() is expected
    with nn.drawing_precision():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if expected else torch.float32)


def test_bf16_can_be_declined(monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: "flags\t\t: avx512_bf16\n")
    monkeypatch.setenv("GENLAB_BF16", "0")
    assert not nn.computes_bf16()


def test_where_nobody_says_what_the_cpu_can_it_is_fp32(monkeypatch) -> None:
    def nothing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(Path, "read_text", nothing)
    assert not nn.computes_bf16()
