"""The quick start: what is not done before the server answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_gradio_is_imported_without_parsing_its_components_for_stubs() -> None:
    code = """
import ast, inspect
parsed, getfile = [], inspect.getfile
whole = ast.get_source_segment
ast.get_source_segment = lambda *a, **k: parsed.append(a) or whole(*a, **k)
from genlab.serving.gradio_patches import import_gradio
import_gradio()
import gradio as gr
from genlab.demo.components.player import Player
with gr.Blocks() as page:
    Player(label="frames")
    gr.Button().click(lambda: 1, None, gr.Number())
print(len(parsed), inspect.getfile is getfile, len(page.fns))
"""
    assert run(code) == "0 True 1"


def test_pandas_waits_until_gradio_asks_for_it() -> None:
    code = """
import sys
from genlab.serving.gradio_patches import import_gradio
import_gradio()
import gradio as gr
with gr.Blocks():
    gr.Button().click(lambda: 1, None, gr.Number())
before = sorted(name for name in sys.modules if name.partition(".")[0] in ("pandas", "pyarrow"))
import gradio.caching, pandas
print(before, gradio.caching.pd.DataFrame is pandas.DataFrame, hasattr(gradio.caching.pd, "__path__"))
print(gr.Dataframe(pandas.DataFrame({"a": [1]})).value["data"])
"""
    assert run(code) == "[] True False\n[[1]]"


def test_gradio_compiles_each_template_and_reads_the_certificates_once() -> None:
    code = """
import ssl
from collections import Counter
import jinja2
compiled, read = Counter(), []
compile, create = jinja2.Environment.compile, ssl.create_default_context
jinja2.Environment.compile = lambda self, source, *a, **k: compiled.update([source]) or compile(self, source, *a, **k)
ssl.create_default_context = counted = lambda *a, **k: read.append(a) or create(*a, **k)
from genlab.serving.gradio_patches import import_gradio
import_gradio()
import gradio as gr
print(len(compiled) > 20, max(compiled.values()), len(read), ssl.create_default_context is counted)
print(type(jinja2.Template) is type, "value of the Textbox changes" in gr.Textbox.change.__doc__)
"""
    assert run(code) == "True 1 1 True\nTrue True"


def test_garbage_is_looked_for_from_when_the_page_is_served(tmp_path: Path) -> None:
    code = f"""
import gc, sys
from pathlib import Path
sys.path[0] = {str(ROOT)!r}
import app
from genlab.serving import server
from genlab.demo.engine import Engine
from tests import tiny
sources, load = tiny.save_models(Path({str(tmp_path)!r})), Engine.load
Engine.load = lambda models: print(gc.isenabled()) or load(sources)
server.Server.run = lambda self: print(gc.isenabled(), gc.get_freeze_count() > 100_000)
sys.argv = ["app.py", "--port", "0"]
app.main()
"""
    assert run(code) == "False\nTrue True"
