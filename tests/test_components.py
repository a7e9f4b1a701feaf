"""The components' scripts: how they are linked, and that they read what Python writes. Their own tests: tests/components."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from genlab.demo.components import FOLDER, HEAD, link
from genlab.demo.components.canvas import Canvas, canvas_data
from genlab.demo.components.figure import Figure, Packed, pack
from genlab.demo.components.player import Player, pack_sheet

SCRIPT = HEAD.removeprefix("<script>\n").removesuffix("</script>")


def run(script: str, *, module: bool, **values: Any) -> Any:
    """Return what a script that Node runs writes to stdout as JSON; `values` are its variables. Skip where there is no Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node on this machine: the scripts are tested in a browser alone")
    lines = [f"const {name} = {json.dumps(value)};" for name, value in values.items()]
    command = [node, f"--input-type={'module' if module else 'commonjs'}", "--eval", "\n".join([*lines, script])]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- linking ----


def write(folder: Path, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.js").write_text(source)
    return folder / "main.js"


def test_linked_modules_have_scopes_of_their_own_and_run_once(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        main="""import { one } from './one.js';
import {
  shared,
  Two,
} from './two.js';
const hidden = 'main';
console.log(JSON.stringify([one(), new Two().name, hidden, shared.loads]));
""",
        one="""import { shared } from './two.js';
const hidden = 'one';
export function one() {
  return [hidden, shared.loads];
}
""",
        two="""const hidden = 'two';
export const shared = { loads: 0 };
shared.loads += 1;
export class Two {
  name = hidden;
}
""",
    )
    assert run(link(main), module=False) == [["one", 1], "two", "main", 1]


@pytest.mark.parametrize(
    "source", ["import one from './one.js';\n", "export default 1;\n", "import { a } from './one.js'\n", "export { a };\n"]
)
def test_other_forms_of_imports_and_exports_are_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(
        ValueError, match=r"main\.js: expected an import or export of a form that can be linked, got .(import|export) "
    ):
        link(write(tmp_path, main=source, one=""))


def test_the_linked_script_defines_every_component_and_the_guide() -> None:
    script = f"global.window = {{}};\n{SCRIPT}\nconsole.log(JSON.stringify(Object.keys(window.genlab)));"
    assert run(script, module=False) == ["canvas", "figure", "guide", "player"]


def test_no_text_can_become_markup() -> None:
    """The templates are static, the script writes text as text and asks no other host, and nothing ends the script early."""
    for component in (Canvas(render=False), Figure(render=False), Player(render=False)):
        for text in (component.css_template, component.html_template):
            assert not set("\\`") & set(text)
            assert "{{" not in text
            assert "${" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|</script|<!--", SCRIPT)
    assert "http" not in SCRIPT.replace("http://www.w3.org/2000/svg", "")


# ---- what Python writes, Node reads ----

SERIES = {
    "even": np.linspace(-3, 7, 100),
    "constant": np.full(20, 2.5),
    "logarithmic": np.geomspace(1e-5, 1e3, 200),
    "gaps": np.where(np.arange(50) % 7 == 3, np.nan, np.sin(np.arange(50))),
    "few": np.array([0.5, np.nan, -1]),
    "none": np.full(40, np.nan),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_packed_series_is_decoded_as_python_decodes_it(name: str) -> None:
    packed = pack(SERIES[name])
    plain = packed.model_dump() if isinstance(packed, Packed) else packed
    script = """
import { numbersOf } from './figure/packed.js';
console.log(JSON.stringify(Array.from(numbersOf(series), (v) => (Number.isNaN(v) ? null : v))));
"""
    found = np.array([np.nan if v is None else v for v in run(script, module=True, series=plain)])
    expected = packed.values() if isinstance(packed, Packed) else SERIES[name]
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 17])
def test_the_cells_of_a_sheet_are_where_python_packs_them(n: int) -> None:
    pictures = np.random.default_rng(0).integers(1, 256, (n, 5, 12), dtype=np.uint8)
    script = """
import { cellsOf } from './player/sheet.js';
console.log(JSON.stringify(cellsOf({ n, width: 12, height: 5, captions: [] }, null)));
"""
    sheet = pack_sheet(pictures)
    for picture, cell in zip(pictures, run(script, module=True, n=n), strict=True):
        np.testing.assert_array_equal(sheet[cell["y"] : cell["y"] + 5, cell["x"] : cell["x"] + 12], picture)


def test_the_canvas_reads_pictures_and_sends_back_their_bytes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    script = """
import { base64Of, bytesOf } from './controls/bytes.js';
import { opaque } from './canvas/pen.js';
console.log(JSON.stringify([Array.from(opaque(bytesOf(text), 3)), base64Of(bytesOf(text))]));
"""
    text = canvas_data("a", [picture], ["x"], ["p"]).x
    shown, sent = run(script, module=True, text=text)
    np.testing.assert_array_equal(np.reshape(shown, (5, 4, 4))[..., :3], picture)
    assert base64.b64decode(sent) == picture.tobytes()
