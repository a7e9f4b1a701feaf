"""The quick import of gradio."""

from __future__ import annotations

import subprocess
import sys


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
from genlab.demo.imports import import_gradio
import_gradio()
import gradio as gr
from genlab.demo.player import Player
with gr.Blocks() as page:
    Player(label="frames")
    gr.Button().click(lambda: 1, None, gr.Number())
print(len(parsed), inspect.getfile is getfile, len(page.fns))
"""
    assert run(code) == "0 True 1"
