"""What several test files share: small data, a small page on a server, a browser, second implementations."""

from __future__ import annotations

import atexit
import gzip
import io
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # no page of a test reports its use to gradio
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: torch's threads would only stand in each other's way
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if "GENLAB_CACHE" not in os.environ:  # shared by the processes of one session
    os.environ["GENLAB_CACHE"] = tempfile.mkdtemp(prefix="genlab-cache-")
    atexit.register(shutil.rmtree, os.environ["GENLAB_CACHE"], ignore_errors=True)
os.environ["GENLAB_BF16"] = "0"  # pictures are compared with those of fp32, whatever this CPU can do; servers inherit it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler of `--dist loadfile`: one process runs a whole file, so that its pages are served once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def needed(module: str) -> Any:
    """Import a package of requirements-dev.txt; skip the test where it is not installed."""
    return pytest.importorskip(module, reason=f"{module} is not installed; pip install -r requirements-dev.txt")


@pytest.fixture(scope="session")
def diffusers() -> Any:
    """Return diffusers, whose schedulers are a second implementation of ours."""
    return needed("diffusers")


@pytest.fixture(scope="session")
def scipy() -> Any:
    """Return scipy, a second implementation of our entropies, roots and distances."""
    return needed("scipy")


def write_idx(path: Path, values: np.ndarray) -> None:
    """An IDX file of unsigned bytes (LeCun's format): two zeros, type 8, rank, big-endian sizes, the bytes."""
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --data-dir with `mnist` and `fashion-mnist` in the original format: 40 + 20 pictures of 8×8, ten classes."""
    root = tmp_path_factory.mktemp("data")
    for number, name in enumerate(("mnist", "fashion-mnist")):
        random = np.random.default_rng(number)
        (root / name).mkdir()
        for stem, count in (("train", 40), ("t10k", 20)):
            labels = np.arange(count) % 10
            images = np.clip(25 * labels[:, None, None] + random.integers(0, 30, (count, 8, 8)), 0, 255)
            write_idx(root / name / f"{stem}-images-idx3-ubyte.gz", images)
            write_idx(root / name / f"{stem}-labels-idx1-ubyte.gz", labels)
    return root


@pytest.fixture
def training_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For tests that train: accelerate keeps its state for the life of a process, and each has its own; no loss curve is drawn,
    which takes longer than the training."""
    from accelerate.state import AcceleratorState

    from training.loop import Log

    monkeypatch.setattr(Log, "plot", lambda self, path: path.write_bytes(b"\x89PNG"))
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """A folder of 24 RGB pictures of several sizes, twelve in each of two classes."""
    random = np.random.default_rng(0)
    for name, colour in (("blue", (30, 60, 200)), ("red", (200, 40, 30))):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            noise = random.integers(0, 30, (9 + i, 20 - i, 3))
            Image.fromarray((np.array(colour) + noise).astype(np.uint8)).save(tmp_path / "pictures" / name / f"{i:02}.png")
    return tmp_path / "pictures"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page of `tests/small_page.py` on a server whose environment contains secrets, and a client of it."""
    import gradio as gr
    import httpx

    from genlab.serving import connection, server
    from tests import small_page, tiny

    folder = tmp_path_factory.mktemp("server")
    uploads = folder / "genlab-uploads"
    uploads.mkdir()
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADIO_TEMP_DIR", str(uploads))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GENLAB_SECRET"):
        patch.setenv(name, small_page.CANARY)
    patch.setattr(connection, "HEAD_SECONDS", 2.0)
    state: dict[str, bool | str] = {"ready": True}
    meter = small_page.Meter()
    demo = small_page.page(meter)
    style: dict[str, Any] = {"css": ".mine{color:#123456}", "js": "() => 41 + 1", "theme": gr.themes.Soft()}
    app = server.build(demo, ready=lambda: state["ready"], limits=small_page.FREE, **style)
    with tiny.running(app) as instance, httpx.Client(base_url=instance.url, timeout=30, trust_env=False) as client:
        yield SimpleNamespace(
            client=client, url=instance.url, port=instance.port, uploads=uploads, folder=folder, app=app, demo=demo,
            meter=meter, state=state,
        )  # fmt: skip
    patch.undo()


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A PNG file of 7×5 red pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a screen; where there is none, or no Playwright to drive it, the test is skipped.

    What its pages ask of other hosts than the app's is in `foreign`.
    """
    api = needed("playwright.sync_api")
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        started.foreign, new_context = [], started.new_context

        def note(asked: Any) -> None:
            if urlsplit(asked.url).scheme not in ("data", "blob") and urlsplit(asked.url).hostname != "127.0.0.1":
                started.foreign.append(asked.url)

        def watched_context(**options: Any) -> Any:
            context = new_context(**options)
            context.on("request", note)
            context.on("page", lambda page: page.on("websocket", note))
            return context

        started.new_context = watched_context
        started.new_page = lambda **options: started.new_context(**options).new_page()
        yield started
        started.close()
        assert started.foreign == []


@pytest.fixture(autouse=True)
def nothing_foreign(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test with a browser: nothing was asked of another host than the app's."""
    yield
    if "browser" in request.fixturenames:
        assert request.getfixturevalue("browser").foreign == []
