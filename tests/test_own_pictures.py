"""From a folder of pictures to a page that serves three kinds of model of it, by the commands of docs/training.md."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client
from PIL import Image

from tests.small_page import wait_until

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"## From a folder to a page\n.*?```bash\n(.*?)```", TEXT, re.DOTALL)
TINY = "--steps 2 --batch-size 8 --width 8 --sample-every 2 --precision fp32"


def write_pictures(folder: Path) -> None:
    """Write 60 pictures of every mode and several sizes: discs on a ground, in colours that tell three folders apart."""
    random = np.random.default_rng(0)
    for i in range(60):
        place, side = folder / ("red", "green", "blue")[i % 3], 40 + i
        place.mkdir(parents=True, exist_ok=True)
        y, x = np.mgrid[:side, : side + i % 7]
        disc = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / random.uniform(2.5, 5)) ** 2
        pixels = random.integers(0, 60, (*disc.shape, 3))
        pixels[disc, i % 3] += 180
        picture = Image.fromarray(pixels.astype(np.uint8))
        mode = ("RGB", "RGBA", "P", "L", "CMYK")[i % 5]
        picture.convert(mode).save(place / f"{i:02}.{'jpg' if mode in ('RGB', 'CMYK') else 'png'}")


@pytest.mark.long
def test_the_commands_lead_from_a_folder_to_a_page_that_draws(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | {"PATH": search, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    *commands, serve = (shlex.split(line.replace("~", str(tmp_path))) for line in BLOCK.splitlines())
    assert [command[1].split("/")[1] for command in commands] == [
        "preflight.py", "train_ddpm.py", "train_vae.py", "train_ddpm.py"
    ]  # fmt: skip
    for python, script, *words in commands:
        tiny = [] if script.endswith("preflight.py") else TINY.split()
        command = [python, str(ROOT / script), *words, *tiny]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        assert re.search(r"pictures: 5\d pictures to train on, \d held out, as 32×32 RGB", done.stdout)
        assert re.search(r"classes: blue 1\d, green 1\d, red 1\d", done.stdout)
    assert all((tmp_path / "runs" / name / "report.html").is_file() for name in ("my-ddpm", "my-vae", "my-latent"))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = subprocess.Popen([serve[0], str(ROOT / "app.py"), *serve[2:], "--port", str(port)], cwd=tmp_path, env=env)
    try:
        address = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert page.poll() is None
            try:
                return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(ready, 300)
        client = Client(address, token=False, verbose=False)
        for model in ("my-ddpm", "my-vae", "my-latent"):
            with Image.open(client.predict(model=model, seed=1, api_name="/sample")) as sheet:
                assert sheet.mode == "RGB"
                assert min(sheet.size) >= 4 * 32
    finally:
        page.terminate()
        page.wait(60)
