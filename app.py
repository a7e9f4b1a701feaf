"""Builds the page and serves it: `python app.py`. The heavy imports come after the command line has been read."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import gradio as gr


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; GENLAB_MODELS stands in for --models."""
    parser = argparse.ArgumentParser(description="Serve the genlab page and its API.")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="folders of runs or models, names of models that ship with genlab, or Hub ids user/repo or user/repo@revision; "
        "all that ship where none is given (or GENLAB_MODELS, separated by commas or spaces)",
    )
    parser.add_argument(
        "--host", help="address to listen on (or GRADIO_SERVER_NAME; default: this machine only, all on a Space)"
    )
    parser.add_argument("--port", type=int, help="port to listen on (or GRADIO_SERVER_PORT; default: 7860)")
    parser.add_argument(
        "--compile",
        action="store_true",
        default=os.environ.get("GENLAB_COMPILE", "").lower() in ("1", "true", "yes"),
        help="compile the networks of diffusion models for this machine, in the background: steps take about seven tenths of "
        "the time after some minutes; needs a C++ compiler (or GENLAB_COMPILE=1)",
    )
    chosen = parser.parse_args(arguments)
    if chosen.port is not None and not 0 <= chosen.port <= 65535:
        parser.error(f"--port: expected a number from 0 to 65535, got {chosen.port}")
    if chosen.models is None:
        chosen.models = [name for name in re.split(r"[,\s]+", os.environ.get("GENLAB_MODELS", "")) if name]
    return chosen


def place_cache() -> None:
    """Give the Hub's client a temporary cache where its own cannot be made, as for a user without a home."""
    own = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME") or "~/.cache/huggingface"
    try:
        os.makedirs(os.path.expanduser(own), exist_ok=True)
    except OSError as error:
        os.environ["HF_HUB_CACHE"] = cache = tempfile.mkdtemp(prefix="genlab-hub-")
        print(f"genlab: {own} cannot be made ({error.strerror}): models from the Hub go to {cache} until this ends", flush=True)


def main() -> None:
    chosen = options()
    place_cache()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    gc.disable()  # hardly anything of what a start makes is garbage: with collections it takes 1.10 times the CPU time
    from genlab.serving.gradio_patches import import_gradio

    import_gradio()
    if os.environ.get("SPACES_ZERO_GPU"):
        import spaces  # noqa: F401 (before torch, which it changes)
    from genlab.demo import theme, zero
    from genlab.demo.app import create_app
    from genlab.demo.components import HEAD
    from genlab.demo.documents import DOCUMENTS
    from genlab.demo.requested import Requested
    from genlab.demo.served import LoadError, Models
    from genlab.demo.turns import DEADLINE, Runner, Scheduler
    from genlab.serving import server
    from genlab.serving.language import choose

    requested = Requested(chosen.models)
    try:
        models = requested.models()
    except LoadError as error:
        sys.exit(f"error: {error}")
    for problem in models.problems:
        print(f"warning: {choose(problem)}", file=sys.stderr, flush=True)
    scheduler, compiling = Scheduler(), set[int]()

    def make_page(models: Models) -> tuple[gr.Blocks, Runner]:
        runner = Runner(scheduler=scheduler)
        page = create_app(models, runner)
        if chosen.compile:
            from genlab import compiled

            logging.getLogger(compiled.__name__).setLevel(logging.INFO)
            compiled.start([served.package for served in models.values() if id(served.package) not in compiling])
            compiling.update(id(served.package) for served in models.values())
        return page, runner

    page, runner = make_page(models)
    zero.start(list(models.values()), print)

    def answering(replace: Callable[[gr.Blocks], None]) -> None:
        def show(models: Models) -> None:
            page, runner = make_page(models)
            replace(page)
            runner.started()
            for served in models.values():
                print(f"genlab: serves {served.id} from {choose(served.origin)}", flush=True)
            gc.unfreeze()
            gc.collect()
            gc.freeze()

        runner.started()
        requested.follow(show)

    def ready() -> bool | str:
        stuck = scheduler.stuck()
        return f"the models' thread has not answered for {DEADLINE + stuck:.0f} seconds" if stuck else requested.ready()

    gc.freeze()  # what exists now stays: a full collection would stop all visitors nine times as long
    gc.enable()
    style = {"theme": theme.theme(), "css": theme.CSS, "head": HEAD}
    try:
        server.serve(page, chosen.host, chosen.port, ready=ready, answering=answering, documents=DOCUMENTS, **style)
    finally:
        requested.end()


if __name__ == "__main__":
    main()
