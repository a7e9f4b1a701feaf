"""The tab of CONTRIBUTING.md: its very code, put on the page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

import genlab.demo.tabs
from genlab.demo import app
from genlab.serving.language import choose
from tests import tiny

ROOT = Path(__file__).parents[1]
TAB, TEST = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
NAME = "genlab.demo.tabs.coin"


@pytest.fixture(scope="module")
def coin() -> Iterator[ModuleType]:
    """The tab as a module that can be imported, and listed in TABS."""
    module = ModuleType(NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, NAME, module)
        patch.setattr(genlab.demo.tabs, "coin", module, raising=False)
        exec(compile(TAB, "CONTRIBUTING.md", "exec"), module.__dict__)
        patch.setitem(app.TABS, "coin", module)
        yield module


@pytest.fixture(scope="module")
def http(coin: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    models = tiny.load_models(tiny.save_models(tmp_path_factory.mktemp("models")))
    with tiny.serving(models) as url, httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
        yield client


def test_the_tab_is_on_the_page_in_both_languages(coin: ModuleType, http: httpx.Client) -> None:
    for language in ("en", "zh"):
        components = http.get(f"/config?lang={language}").json()["components"]
        tabs = {c["props"]["id"]: c["props"]["label"] for c in components if c["type"] == "tabitem"}
        assert tabs["coin"] == choose(coin.TEXT["title"], language)
        assert list(tabs) == list(app.TABS)


def test_its_endpoint_answers_and_refuses(http: httpx.Client) -> None:
    assert tiny.called(http, "coin", {"percent": 25}) == ("complete", [{"percent": 25, "bits": pytest.approx(0.811278)}])
    event, answer = tiny.called(http, "coin", {"percent": 101})
    assert event == "error"
    assert answer["error"] == "probability of heads, in percent: expected a whole number from 0 to 100, got 101"


def test_its_test_passes(coin: ModuleType) -> None:
    names: dict[str, object] = {"__name__": "test_tab_coin"}
    exec(compile(TEST, "CONTRIBUTING.md", "exec"), names)
    tests = {name: test for name, test in names.items() if name.startswith("test_")}
    for test in tests.values():
        for mark in getattr(test, "pytestmark", []):
            for value in mark.args[1]:
                test(value)  # type: ignore[operator]
        if not hasattr(test, "pytestmark"):
            test()  # type: ignore[operator]
    assert len(tests) == 2


def test_it_is_written_as_everything_else_here(tmp_path: Path) -> None:
    """The linter and the formatter, with the project's rules."""
    for name, source in (("coin.py", TAB), ("test_tab_coin.py", TEST)):
        (tmp_path / name).write_text(source)
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
        done = subprocess.run(ruff, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout
