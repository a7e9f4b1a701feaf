"""The lines of docs/rented.md are ones that the installed clients take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser

from training.config import DDPMTraining

ROOT = Path(__file__).parents[1]
LINES = re.findall(r"^(?:hf|accelerate) .*$", (ROOT / "docs" / "rented.md").read_text(), re.MULTILINE)


def trained(arguments: list[str]) -> None:
    """What follows the script are options of the training."""
    import tyro

    assert isinstance(tyro.cli(DDPMTraining, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)), DDPMTraining)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("accelerate")])
def test_a_line_for_several_gpus_or_machines(line: str) -> None:
    _, launch, *words = shlex.split(line)
    assert launch == "launch"
    found = launch_command_parser().parse_args(words)
    assert found.training_script == "training/train_ddpm.py"
    assert found.num_processes > 1
    trained(found.training_script_args)


def test_a_job_of_the_hub() -> None:
    from huggingface_hub.cli.hf import app

    (line,) = (line for line in LINES if line.startswith("hf"))
    name, command, words, context = "hf", app, shlex.split(line)[1:], None
    while True:
        context = command.make_context(name, words, parent=context)
        if not hasattr(command, "commands"):
            break
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    found = context.params
    assert (found["flavor"], found["timeout"], found["secrets"]) == ("l4x1", "6h", ["HF_TOKEN"])
    assert (ROOT / found["script"]).is_file()
    trained(list(found["script_args"]))
