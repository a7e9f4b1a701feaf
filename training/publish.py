"""Push a finished model to the Hub, or the page with models to a Space there.

python training/publish.py RUN_FOLDER
python training/publish.py --space you/genlab --models you/model
"""

from __future__ import annotations

import sys
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import tyro

from training.config import parse


@dataclass(frozen=True)
class Publish:
    """Push the model of a finished run to the Hub as one commit, verify it, and tag it; with --space, serve models there."""

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_FOLDER")] = None
    """Run folder of a training script, or a model folder."""
    repo_id: str | None = None
    """Repository to push to; by default YOU/genlab-KIND-DATASET."""
    private: bool = False
    """Make the repository private when it is created."""
    examples: bool = True
    """Pictures of the data set in the folder are pushed too: up to 256 held-out ones, and training ones in nearest.png."""
    license: str | None = None
    """Licence of the model, as the Hub names it (mit, cc-by-4.0, …); by default that of the card there, else apache-2.0."""
    overwrite: bool = False
    """Replace the files of another format in the repository."""
    dry_run: bool = False
    """Show what would be sent, and send nothing."""
    space: str | None = None
    """Space to make or update instead, you/name; it serves --models."""
    models: tuple[str, ...] = ()
    """Models on the Hub that the Space serves, you/name or you/name@revision; by default those that ship with genlab."""
    hardware: str | None = None
    """Hardware of the Space, as the Hub names it; by default zero-a10g for a free account, else cpu-basic."""

    def __post_init__(self) -> None:
        given = [name for name in ("models", "hardware") if getattr(self, name)]
        if self.space is None and given:
            raise ValueError(f"--{given[0]}: expected --space with it")
        if (self.folder is None) == (self.space is None):
            raise ValueError("expected either RUN_FOLDER, to push a model, or --space, to serve models that are on the Hub")


def main() -> int:
    """Run the command line; return the exit status.

    0: pushed, or the Space runs. 1: the model cannot be read, or you may not push it; nothing was sent. 3: the push or the
    deployment failed; run it again.
    """
    config = parse(Publish)
    return _push(config, config.folder) if config.folder is not None else _deploy(config)


def _deploy(config: Publish) -> int:
    from genlab import space
    from genlab.package import ModelError

    root = Path(__file__).resolve().parents[1]
    try:
        if config.dry_run:
            for name, content in space.tree(root, config.models, config.hardware or space.ZERO).items():
                print(f"  {name}: {len(content):,} bytes")
            return 0
        address = space.deploy(root, str(config.space), config.models, config.hardware, config.private)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    print(f"runs: {address}")
    return 0


def _push(config: Publish, run: Path) -> int:
    import genlab
    from genlab import publish
    from genlab.package import ModelError, find_package, without_pictures

    folder = find_package(run) or run
    with ExitStack() as files:
        try:
            if not folder.is_dir():
                raise ModelError(f"{run}: expected a run folder with a finished model, or a model folder")
            model = genlab.load(folder)
            repo_id = publish.authorise(model.kind, model.data.name, config.repo_id, config.private, config.overwrite)
            public = files.enter_context(nullcontext(folder) if config.examples else without_pictures(folder))
            if config.dry_run:
                print(publish.plan(public, repo_id, config.private, config.license, config.overwrite))
                return 0
        except ModelError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        try:
            print(f"pushed: {publish.push(public, repo_id, config.private, config.license, config.overwrite)}")
        except ModelError as error:
            print(f"error: not pushed: {error}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
