"""The account of the notes as documents that the page serves: docs/notes.md and notes.zh.md as HTML.

They stand at the paths that they have in the repository, so `docs/notes.md#n1-4` leads to section 1.4 there and here. Formulas
are rendered in the browser by the KaTeX that comes with gradio; without scripts they stay LaTeX.
"""

from __future__ import annotations

import re
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import genlab
from genlab.serving.language import both

if TYPE_CHECKING:
    from genlab.serving.server import Documents

FOLDERS = (Path(genlab.__file__).parent / "docs", Path(genlab.__file__).parents[1] / "docs")
"""Where the documents are in an installed package and in a clone; a copy of a clone may lack the link in genlab/."""
LOCAL = "http://127.0.0.1:7860/"
"""The address of a page in the documents."""
MATH = re.compile(r"^ *```math\n(?P<block>.*?)\n *```$|\$(?P<line>[^$]+)\$", re.DOTALL | re.MULTILINE)
MARK = re.compile("\ue000(\\d+)\ue001")
"""Stands for a formula while the text around it is rendered: a character that no text uses, and the formula's number."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title><link rel="stylesheet" href="../assets/%(css)s"><style>
:root { color-scheme: light dark; --link: #0072B2; --line: #E2E8F0; --back: #F8FAFC; --ink: #0B1120; }
@media (prefers-color-scheme: dark) { :root { --link: #7BBFEA; --line: #263041; --back: #0B1120; --ink: #E2E8F0; } }
body { max-width: 46rem; margin: 0 auto; padding: 1rem clamp(12px, 3vw, 32px) 4rem; overflow-wrap: break-word; }
body { background: var(--back); color: var(--ink); font: 1rem/1.6 system-ui, "PingFang SC", "Noto Sans CJK SC", sans-serif; }
a { color: var(--link); }
a[id] { scroll-margin-top: 3rem; }
nav { position: sticky; top: 0; background: var(--back); padding-block: 6px; z-index: 1; }
code { font-size: 0.9em; }
.katex-display { overflow: auto hidden; padding-block: 4px; }
table { display: block; overflow-x: auto; border-collapse: collapse; }
td, th { border: 1px solid var(--line); padding: 4px 8px; text-align: start; }
</style><script type="module">
import render from "../assets/%(js)s";
const delimiters = [{ left: "$$", right: "$$", display: true }, { left: "$", right: "$", display: false }];
render(document.querySelector("main"), { delimiters });
document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
</script></head>
<body><nav><a href="../">← genlab</a></nav><main class="%(scope)s">
%(body)s</main></body></html>
"""


def notes(*anchors: str) -> str:
    """Return links, in Markdown, to sections of the account of the notes, from their anchors, n1-4 say."""
    places = [(".".join(re.findall(r"\d+", anchor)), anchor) for anchor in anchors]
    en = ", ".join(f"[{number}](docs/notes.md#{anchor})" for number, anchor in places)
    zh = "、".join(f"[{number}](docs/notes.zh.md#{anchor})" for number, anchor in places)
    return both(f" (Notes {en})", f"（讲义 {zh}）")


@cache
def render(name: str) -> str:
    """Return a document as a page of HTML.

    Links to the page stay on this server; those to files of the repository are dropped, since only the documents are served.
    """
    import gradio as gr  # imported here: a tab's texts link the notes, and load without gradio
    from markdown_it import MarkdownIt

    source = next(path for folder in FOLDERS if (path := folder / name).is_file()).read_text(encoding="utf-8")
    formulas: list[str] = []

    def marked(found: re.Match[str]) -> str:
        formulas.append(f"$${found['block']}$$" if found["block"] else f"${found['line']}$")
        return f"\ue000{len(formulas) - 1}\ue001"

    text = MATH.sub(marked, source).replace(f"({LOCAL}", "(../")
    text = re.sub(r"\[([^]]*)\]\(\.\./(?!\?)[^)]*\)", r"\1", text)
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assets = Path(gr.__file__).parent / "templates/frontend/assets"
    css, js = (next(assets.glob(pattern)).name for pattern in ("katex-*.css", "auto-render-*.js"))
    title = source.partition("\n")[0].removeprefix("# ")
    return PAGE % {
        "title": title,
        "scope": f"gradio-container-{gr.__version__.replace('.', '-')}",  # to which gradio confines KaTeX's style
        "css": css,
        "js": js,
        "body": MARK.sub(lambda found: f"<span>{escape(formulas[int(found[1])])}</span>", body),
    }


DOCUMENTS: Documents = {"notes.md": ("en", partial(render, "notes.md")), "notes.zh.md": ("zh", partial(render, "notes.zh.md"))}
