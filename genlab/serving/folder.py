"""The folder of uploads and results as visitors see it: no reply says where on this machine it lies.

Replies call it `NAME`. What a visitor sends back has the real path again before anything checks it.
"""

from __future__ import annotations

import json

NAME = "genlab-files"


class Folder:
    """A folder whose path is hidden.

    Args:
        path: its real path.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._in_json = json.dumps(path, ensure_ascii=False)[1:-1].encode()

    def hidden(self, document: bytes) -> bytes:
        """Return a document in JSON, or one that contains JSON, with the name in the place of the path."""
        return document.replace(self._in_json, NAME.encode())

    def revealed(self, document: bytes) -> bytes:
        """Return a document in JSON with the path in the place of the name, where a text begins with it."""
        return document.replace(f'"{NAME}'.encode(), b'"' + self._in_json)

    def real(self, path: str) -> str:
        """Return the real path of a file that a reply has named."""
        return self.path + path.removeprefix(NAME) if path.startswith(f"{NAME}/") else path
