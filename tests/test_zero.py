"""ZeroGPU: what runs on a lent GPU, and what the Hub is told at the start."""

from __future__ import annotations

import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from genlab.demo import zero
from genlab.demo.turns import Runner
from tests import tiny

X = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
T = torch.tensor([3, 40])


@pytest.fixture
def models():
    return tiny.only(tiny.ddpm(tiny.dataset("mnist").spec), "m")


@pytest.fixture
def lent(monkeypatch) -> SimpleNamespace:
    """`spaces` as far as it is used: what goes to and from the function with the GPU is copied, as between processes."""
    told = SimpleNamespace(calls=[], started=0)

    def gpu(duration: int):
        def decorate(function):
            def call(*arguments):
                assert not any(isinstance(each, torch.Tensor) for each in arguments)
                told.calls.append(duration)
                result = function(*pickle.loads(pickle.dumps(arguments)))  # noqa: S301
                assert not any(isinstance(each, torch.Tensor) for each in result)
                return pickle.loads(pickle.dumps(result))  # noqa: S301

            return call

        return decorate

    def startup() -> None:
        told.started += 1

    spaces, inner = ModuleType("spaces"), ModuleType("spaces.zero")
    spaces.GPU, spaces.zero, inner.startup = gpu, inner, startup
    monkeypatch.setitem(sys.modules, "spaces", spaces)
    monkeypatch.setitem(sys.modules, "spaces.zero", inner)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(zero, "DEVICE", "cpu")
    return told


def evaluated(models) -> list[torch.Tensor]:
    labels = torch.tensor([1, -1])
    (found,) = Runner().evaluate(models["m"], 1.5, True, [(X, T, labels)])
    return [found.eps_hat, found.x0_hat]


def test_a_large_model_is_evaluated_on_the_lent_gpu_with_the_same_result(models, lent, monkeypatch):
    expected = evaluated(models)
    assert lent.calls == []
    monkeypatch.setattr(zero, "PARAMETERS", 1)
    for one, other in zip(evaluated(models), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert lent.calls == [zero.SECONDS]


def test_a_model_that_the_forked_process_lacks_is_read_there(models, lent, monkeypatch, tmp_path):
    (folder, *_) = tiny.save_models(tmp_path)
    models = tiny.load_models([folder])
    served = models["ddpm-fashion-mnist"]
    found = zero._evaluate(str(served.package.folder), X.numpy(), T.numpy(), None, 1.0, True)
    torch.testing.assert_close(torch.from_numpy(found[0]), served.model.predict(X, T, None, 1.0, True).eps_hat.detach())


def test_the_start_is_reported_and_says_where_each_model_runs(models, lent):
    said: list[str] = []
    zero.start(list(models.values()), said.append)
    assert lent.started == 1
    assert "m (" in said[0]
    assert "runs on this CPU" in said[0]


def test_elsewhere_nothing_is_imported(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "spaces", None)
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    zero.start(list(models.values()), print)
    evaluated(models)
