"""The compiled forward pass: used where it is right, and only there. Compiling itself takes minutes: `pytest -m long`."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab import compiled, hub, nn
from genlab.ddpm import DDPM
from genlab.package import Package, write_package
from tests import tiny

MNIST = tiny.dataset("mnist")


def evaluate(model: DDPM, count: int, label: Tensor | None) -> Tensor:
    x = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(count))
    return model.predict(x, torch.arange(1, count + 1), label).eps_hat


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Tensor]], list[tuple[Tensor, ...]]]:
    """Takes any function for the code in a package; returns what that code is asked, as it comes."""

    def take(code: Callable[..., Tensor]) -> list[tuple[Tensor, ...]]:
        asked: list[tuple[Tensor, ...]] = []

        def run(*given: Tensor) -> Tensor:
            asked.append(given)
            return code(*given)

        monkeypatch.setattr("torch._inductor.aoti_load_package", lambda path: run)
        return asked

    return take


def test_compiled_code_answers_unless_a_gradient_is_asked_for(loaded) -> None:
    model, twin = tiny.ddpm(MNIST.spec), tiny.ddpm(MNIST.spec)
    asked = loaded(lambda *given: twin.network(*given))
    compiled.use(model, Path("code.pt2"))
    asked.clear()
    for label in (None, torch.tensor([3, -1])):
        with torch.inference_mode():
            assert torch.equal(evaluate(model, 2, label), evaluate(twin, 2, label))
    assert [given[2].tolist() for given in asked] == [[-1, -1], [3, -1]]
    with torch.inference_mode():
        model.predict(
            torch.randn(1, 1, 28, 28).mT.expand(2, -1, -1, -1), torch.tensor([9]).expand(2), torch.tensor([3]).expand(2)
        )
    assert all(each.is_contiguous() for each in asked[-1])
    evaluate(model, 2, None).sum().backward()
    assert len(asked) == 3
    assert all(p.grad is not None for p in model.unet.enter.parameters())


def test_where_the_cpu_computes_in_bf16_the_code_is_for_pictures_and_a_likelihood_stays_fp32(loaded, monkeypatch) -> None:
    for module in (nn, compiled):
        monkeypatch.setattr(module, "computes_bf16", lambda: True)
    model, twin = tiny.ddpm(MNIST.spec), tiny.ddpm(MNIST.spec)
    asked = loaded(lambda *given: 1.01 * twin.network(*given))  # as far off as bf16 may be
    compiled.use(model, Path("code.pt2"))
    asked.clear()
    with torch.inference_mode():
        assert torch.equal(evaluate(model, 2, None), evaluate(twin, 2, None))
        assert not asked
        with nn.drawing_precision():
            evaluate(model, 2, None)
    assert len(asked) == 1


def test_a_model_without_classes_asks_for_none(loaded) -> None:
    spec = tiny.DataSpec("plain", 1, 28, ())
    model, twin = tiny.ddpm(spec), tiny.ddpm(spec)
    asked = loaded(lambda *given: twin.network(*given))
    compiled.use(model, Path("code.pt2"))
    with torch.inference_mode():
        assert torch.equal(evaluate(model, 3, None), evaluate(twin, 3, None))
    assert len(asked[-1]) == 2


@pytest.mark.parametrize("wrong", [lambda y: 1.001 * y, lambda y: torch.full_like(y, torch.nan)])
def test_code_with_other_answers_is_not_used(loaded, wrong) -> None:
    model, twin = tiny.ddpm(MNIST.spec), tiny.ddpm(MNIST.spec)
    loaded(lambda *given: wrong(twin.network(*given)))
    with pytest.raises(ValueError, match=r"expected compiled code within 0\.0001 of the network for 1 pictures, got"):
        compiled.use(model, Path("code.pt2"))
    with torch.no_grad():
        assert torch.equal(evaluate(model, 2, None), evaluate(twin, 2, None))


def package_of(folder: Path) -> Package:
    write_package(folder, tiny.ddpm(MNIST.spec), {}, MNIST)
    return hub.read(folder)


def test_a_model_that_cannot_be_compiled_goes_on(tmp_path: Path, caplog) -> None:
    package = package_of(tmp_path / "mine")
    (package.folder / "config.json").write_text("{")
    compiled.start([package]).join(120)
    (said,) = caplog.messages
    assert said.startswith("mine continues without being compiled: ModelError: ")
    assert "config.json" in said
    with torch.no_grad():
        evaluate(package.model, 2, None)


def test_compiling_does_not_go_on_for_ever(tmp_path: Path, caplog, monkeypatch) -> None:
    sleeper = tmp_path / "sleep"
    sleeper.write_text("#!/bin/sh\nsleep 600\n")
    sleeper.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    monkeypatch.setattr(compiled, "SECONDS", 0.2)
    compiled.start([package_of(tmp_path / "mine")]).join(60)
    assert caplog.messages == ["mine continues without being compiled: compiling took longer than 0.2 seconds"]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_a_compiled_network_says_what_the_network_says(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    package = package_of(tmp_path / "mine")
    twin = hub.read(tmp_path / "mine").model
    compiled.start([package]).join(600)
    assert caplog.messages == ["mine is compiled"]
    with torch.inference_mode():
        for count in (1, 2, 7, 40):
            for label in (None, torch.arange(count) % 11 - 1):
                torch.testing.assert_close(
                    evaluate(package.model, count, label), evaluate(twin, count, label), rtol=1e-4, atol=1e-4
                )
