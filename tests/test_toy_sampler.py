"""A sampler is added as CONTRIBUTING says, and is then offered everywhere: on the page, to the scripts and from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import tiny

ADD = """
import typing
from genlab import config
config.SamplerName = typing.Literal[(*typing.get_args(config.SamplerName), "toy")]  # the name

from genlab import sampler
def toy(schedule, noise, variance, eta):
    return lambda history, x_t, denoised, t, s: (denoised.x0_hat, history)
sampler.SAMPLERS["toy"] = sampler.Sampler("log-SNR", toy)  # the step
"""
LOOK = """
import torch
import tyro
import genlab
from genlab.demo.app import create_app
from genlab.demo.requested import Requested
from genlab.demo.tabs.sample.compute import sample
from genlab.demo.tabs.sample.request import parse_sample
from genlab.demo.turns import Runner
from genlab.draw import own_spacing

models, runner = Requested(FOLDERS).models(), Runner()
*_, frame = sample(models, runner, parse_sample(models.offers, "ddpm-mnist", "any", 3, 2, "toy", 1, 5))
pictures = genlab.sample(FOLDERS[1], 3, 5, "toy", 2)
assert torch.equal(frame.pictures, pictures)
assert not torch.equal(pictures, genlab.sample(FOLDERS[1], 3, 5, "DDIM", 2))
how = tyro.cli(config.Sampling, args=["--sampler", "toy"])
assert (how.sampler, own_spacing(how)) == ("toy", "log-SNR")
page = create_app(models, runner)
offered = [block.choices for block in page.blocks.values() if ("UniPC", "UniPC") in (getattr(block, "choices", None) or [])]
assert offered and all(("toy", "toy") in choices for choices in offered), offered
"""


def test_a_sampler_that_is_added_is_offered_everywhere(tmp_path: Path) -> None:
    code = ADD + LOOK.replace("FOLDERS", repr(tiny.save_models(tmp_path)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
