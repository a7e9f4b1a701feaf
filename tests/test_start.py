"""The start of `app.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_garbage_is_collected_again_when_the_page_is_served(tmp_path: Path) -> None:
    code = f"""
import gc, sys
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
import app
from genlab.serving.gradio_patches import import_gradio
import_gradio()
from genlab.serving import server
from genlab.demo.requested import Requested
from tests import tiny
sources, models = tiny.save_models(Path({str(tmp_path)!r})), Requested.models
Requested.models = lambda self: print(gc.isenabled()) or models(Requested(sources))
server.Server.run = lambda self: print(gc.isenabled(), gc.get_freeze_count() > 100_000)
sys.argv = ["app.py", "--port", "0"]
app.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False\nTrue True", done.stderr
