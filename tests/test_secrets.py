"""No file of the repository holds a secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECRETS = r"hf_[A-Za-z0-9]{34}\b|AKIA[0-9A-Z]{16}\b|gh[pousr]_[A-Za-z0-9]{36}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"


def test_no_file_holds_a_secret(tmp_path: Path) -> None:
    def found(folder: Path) -> list[str]:
        asked = ["git", "grep", "--untracked", "-lPI", SECRETS]
        return subprocess.run(asked, cwd=folder, capture_output=True, text=True).stdout.split()

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "leak.txt").write_text("HF_TOKEN=hf_" + "a1B2" * 8 + "zz\n")
    assert found(tmp_path) == ["leak.txt"]
    assert found(ROOT) == []
