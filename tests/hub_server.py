"""A Hub on loopback: the part of the Hub's HTTP interface that the huggingface_hub client uses to push and pull models.

Standard library only. Repositories live in memory: users, tokens that may write or only read, private repositories, commits,
branches, tags, small files inside the commit and large ones by LFS, which are served from another host name as from a CDN.
Storage addresses are signed, and good for one file. Every request is logged, and faults can be switched on: an error, a flipped
bit, a body cut short, silence, a page of HTML as from the login page of a network.

    python tests/hub_server.py --port 8700 --user me --token hf_test

prints the lines to export so that the unmodified client talks to it. A file's content is never looked at.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin")
SECRET = "signs storage addresses"
LOGIN_PAGE = b"<!doctype html><title>Welcome to the hotel's network</title>"
FIRST_FILE = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True)
class Token:
    """A token of `user`; `role` is read, write or fineGrained, the last with `scoped` permissions as whoami tells them."""

    user: str
    role: str = "write"
    scoped: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob_id(self) -> str:
        """Git's id of what Git stores: the content, or the pointer to it."""
        stored = self.content
        if self.lfs:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
            stored = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def lfs_facts(self) -> dict[str, Any] | None:
        return {"oid": self.sha256, "sha256": self.sha256, "size": len(self.content), "pointerSize": 130} if self.lfs else None


@dataclass
class Repo:
    """One repository: its commits by id, and where its branches and tags stand. The id of a Space begins with spaces/.

    Attributes:
        stages: of a Space, what its runtime is at the next questions; the last one stays.
    """

    id: str
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    stages: list[str] = field(default_factory=lambda: ["BUILDING", "APP_STARTING", "RUNNING"])

    def commit(self, files: dict[str, File], title: str) -> str:
        """Move main to a new commit."""
        written = json.dumps([self.id, title, len(self.commits), sorted((p, f.sha256) for p, f in files.items())])
        oid = hashlib.sha1(written.encode()).hexdigest()
        self.commits[oid] = files
        self.titles.append(title)
        self.branches["main"] = oid
        return oid

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a tag or an id names."""
        return self.branches.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """What happens to requests whose "METHOD /path" matches `where`, the next `times` times.

    A number is the status of an error; a function is called, and the request then answered as usual.
    """

    where: str
    what: Literal["flip", "cut", "hang", "html"] | int | Callable[[], object]
    times: int = 10**9


@dataclass(frozen=True)
class Request:
    """One request, as it was answered."""

    method: str
    path: str
    status: int
    token: str | None


class Refused(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


class Hub(ThreadingHTTPServer):
    """The server; `url` is what HF_ENDPOINT must be."""

    daemon_threads = True

    def __init__(self, tokens: dict[str, Token], orgs: dict[str, dict[str, str]] | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.tokens = tokens
        self.orgs = orgs or {}
        """Organisation → user → role in it."""
        self.repos: dict[str, Repo] = {}
        self.pro: set[str] = set()
        """Users who pay: others may have Gradio Spaces on ZeroGPU only."""
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def storage(self) -> str:
        """Where large files lie: this server under another host name, to which the client must send no token."""
        return f"http://localhost:{self.server_address[1]}/storage"

    def environment(self, home: object, token: str | None = None) -> dict[str, str]:
        """What a client process needs in its environment."""
        environment = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return {**environment, "HF_TOKEN": token} if token else environment

    def fault_of(self, line: str) -> str | int | Callable[[], object] | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.where, line):
                    fault.times -= 1
                    return fault.what
        return None

    def signed(self, oid: str) -> str:
        """Where a large file is to be had, with the signature that its storage asks for."""
        return f"{self.storage}/{oid}?X-Amz-Signature={hashlib.sha256((SECRET + oid).encode()).hexdigest()}"

    def may(self, user: str | None, namespace: str, write: bool) -> bool:
        role = self.orgs.get(namespace, {}).get(user or "")
        return user == namespace or role in ("admin", "write", "contributor") or (not write and role == "read")

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of the server's business."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    # One line per kind of request: method, path, what answers it.
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/repos/create", "create"),
        ("GET", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)", "info"),
        ("GET", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/revision/(?P<revision>[^/]+)", "info"),
        ("GET", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/refs", "refs"),
        ("GET", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("POST", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/paths-info/(?P<revision>[^/]+)", "paths_info"),
        ("POST", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)", "preupload"),
        ("POST", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/commit/(?P<revision>[^/]+)", "commit"),
        ("POST", r"/api/(?:models/|(?=spaces/))(?P<repo>(?:spaces/)?[^/]+/[^/]+)/tag/(?P<revision>[^/]+)", "tag"),
        ("GET", r"/api/(?P<repo>spaces/[^/]+/[^/]+)/variables", "variables"),
        ("POST", r"/api/(?P<repo>spaces/[^/]+/[^/]+)/variables", "set_variable"),
        ("GET", r"/api/(?P<repo>spaces/[^/]+/[^/]+)/runtime", "runtime"),
        ("POST", r"/api/(?P<repo>spaces/[^/]+/[^/]+)/hardware", "set_hardware"),
        ("POST", r"/(?P<repo>(?:spaces/)?[^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("POST", r"/(?P<repo>(?:spaces/)?[^/]+/[^/]+)\.git/info/lfs/verify", "verify"),
        ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", "store"),
        ("GET", r"/storage/(?P<oid>[0-9a-f]{64})", "stored"),
        ("GET", r"/(?P<repo>(?:spaces/)?[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    )

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self) -> None:
        body = self.read_body()
        path = urlsplit(self.path).path
        self.fault = self.server.fault_of(f"{self.command} {path}")
        try:
            if self.fault == "hang":
                self.server.released.wait()
                self.close_connection = True
                return
            if self.fault == "html":
                self.send(200, LOGIN_PAGE, {"Content-Type": "text/html"})
                return
            if callable(self.fault):
                self.fault()
            if isinstance(self.fault, int):
                raise Refused(self.fault, f"injected error {self.fault}")
            method = "GET" if self.command == "HEAD" else self.command
            for wanted, pattern, name in self.ROUTES:
                found = re.fullmatch(pattern, path)
                if found and wanted == method:
                    with self.server.lock:
                        reply = getattr(self, name)(body, **{k: unquote(v) for k, v in found.groupdict().items()})
                    if reply is not None:
                        self.send(200, json.dumps(reply).encode(), {"Content-Type": "application/json"})
                    return
            raise Refused(404, f"no route for {method} {path}")
        except Refused as refused:
            headers = {"Content-Type": "application/json", "X-Error-Message": refused.message}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self.send(refused.status, json.dumps({"error": refused.message, **refused.more}).encode(), headers)

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.server.requests.append(Request(self.command, urlsplit(self.path).path, status, self.token))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if self.fault == "cut" else body)
        if self.fault == "cut":
            self.close_connection = True

    def send_file(self, content: bytes, headers: dict[str, str]) -> None:
        """A file, or the rest of it from where a Range says."""
        if self.fault == "flip" and content:
            content = bytes([content[0] ^ 1]) + content[1:] if len(content) < 1000 else content[:-1] + bytes([content[-1] ^ 1])
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and int(start[1]) < len(content):
            begin = int(start[1])
            headers = {**headers, "Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
            self.send(206, content[begin:], headers)
        else:
            self.send(200, content, headers)

    # Who asks, and may they

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def asker(self) -> Token | None:
        if self.token is None:
            return None
        if self.token not in self.server.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.server.tokens[self.token]

    def repo(self, name: str, write: bool = False) -> Repo:
        asker = self.asker()
        repo = self.server.repos.get(name)
        user = asker.user if asker else None
        if repo is None or (repo.private and not self.server.may(user, name.split("/")[-2], write=False)):
            raise Refused(404 if asker else 401, "Repository not found", "RepoNotFound")
        if write:
            self.writer(name)
        return repo

    def writer(self, name: str) -> None:
        asker = self.asker()
        if asker is None:
            raise Refused(401, "Invalid username or password.")
        namespace = name.split("/")[-2]
        granted = any(s["entity"]["name"] in (namespace, name) and "repo.write" in s["permissions"] for s in asker.scoped)
        if not (asker.role == "write" or granted) or not self.server.may(asker.user, namespace, write=True):
            raise Refused(403, f"You don't have the rights to write under the namespace {namespace}")

    def at(self, repo: Repo, revision: str) -> str:
        oid = repo.find(revision)
        if oid is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    # What is answered; None where the answer has been sent

    def whoami(self, body: bytes) -> dict[str, Any]:
        asker = self.asker()
        if asker is None:
            raise Refused(401, "Invalid username or password.")
        token: dict[str, Any] = {"displayName": "test", "role": asker.role}
        if asker.role == "fineGrained":
            token["fineGrained"] = {"canReadGatedRepos": False, "global": [], "scoped": list(asker.scoped)}
        orgs = [{"name": o, "type": "org", "roleInOrg": m[asker.user]} for o, m in self.server.orgs.items() if asker.user in m]
        paid = {"isPro": asker.user in self.server.pro}
        return {
            "name": asker.user,
            "type": "user",
            **paid,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }

    def validate(self, body: bytes) -> dict[str, Any]:
        return {"errors": [], "warnings": []}

    def create(self, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        asker = self.asker()
        name = f"{asked.get('organization') or (asker.user if asker else '')}/{asked['name']}"
        space = asked.get("type") == "space"
        name = f"spaces/{name}" if space else name
        self.writer(name)
        if name in self.server.repos:
            raise Refused(409, "You already created this model repo", url=f"{self.server.url}/{name}")
        if space:
            self.paid(asked.get("hardware"))
        self.server.repos[name] = repo = Repo(name, asked.get("visibility") == "private", hardware=asked.get("hardware"))
        repo.variables = {each["key"]: each["value"] for each in asked.get("variables", [])}
        repo.commit({".gitattributes": File(FIRST_FILE)}, "initial commit")
        return {"url": f"{self.server.url}/{name}", "id": name.removeprefix("spaces/"), "name": name}

    def paid(self, hardware: str | None) -> None:
        """Refuse hardware that the asker's plan does not have."""
        asker = self.asker()
        if hardware != "zero-a10g" and (asker is None or asker.user not in self.server.pro):
            raise Refused(402, "Payment Required: upgrade to PRO to host Gradio Spaces on this hardware")

    def variables(self, body: bytes, repo: str) -> dict[str, Any]:
        return {key: {"value": value} for key, value in self.repo(repo, write=True).variables.items()}

    def set_variable(self, body: bytes, repo: str) -> dict[str, Any]:
        found, asked = self.repo(repo, write=True), json.loads(body)
        found.variables[asked["key"]] = asked["value"]
        return self.variables(body, repo)

    def runtime(self, body: bytes, repo: str) -> dict[str, Any]:
        found = self.repo(repo)
        stage = found.stages.pop(0) if len(found.stages) > 1 else found.stages[0]
        return {"stage": stage, "hardware": {"current": found.hardware, "requested": found.hardware}, "gcTimeout": None}

    def set_hardware(self, body: bytes, repo: str) -> dict[str, Any]:
        found, hardware = self.repo(repo, write=True), json.loads(body)["flavor"]
        self.paid(hardware)
        found.hardware = hardware
        return self.runtime(body, repo)

    def info(self, body: bytes, repo: str, revision: str = "main") -> dict[str, Any]:
        found = self.repo(repo)
        oid = self.at(found, revision)
        with_blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        siblings = [
            {"rfilename": path, "size": len(file.content), "blobId": file.blob_id, "lfs": file.lfs_facts}
            if with_blobs
            else {"rfilename": path}
            for path, file in found.commits[oid].items()
        ]
        repo = repo.removeprefix("spaces/")
        return {"id": repo, "modelId": repo, "sha": oid, "private": found.private, "tags": [], "siblings": siblings}

    def refs(self, body: bytes, repo: str) -> dict[str, Any]:
        found = self.repo(repo)
        listed = {
            kind: [{"name": n, "ref": f"refs/{where}/{n}", "targetCommit": oid} for n, oid in names.items()]
            for kind, where, names in (("branches", "heads", found.branches), ("tags", "tags", found.tags))
        }
        return {**listed, "converts": []}

    def tree(self, body: bytes, repo: str, revision: str) -> list[dict[str, Any]]:
        found = self.repo(repo)
        return [self.entry(path, file) for path, file in found.commits[self.at(found, revision)].items()]

    def paths_info(self, body: bytes, repo: str, revision: str) -> list[dict[str, Any]]:
        found = self.repo(repo)
        files = found.commits[self.at(found, revision)]
        return [self.entry(path, files[path]) for path in parse_qs(body.decode())["paths"] if path in files]

    def entry(self, path: str, file: File) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(file.content), "oid": file.blob_id}
        return {**entry, "lfs": file.lfs_facts} if file.lfs else entry

    def preupload(self, body: bytes, repo: str, revision: str) -> dict[str, Any]:
        found = self.repo(repo, write=True)
        now = {p: f.sha256 if f.lfs else f.blob_id for p, f in found.commits[self.at(found, revision)].items()}
        return {
            "files": [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LFS_SUFFIXES) else "regular",
                    "shouldIgnore": False,
                    "oid": now.get(f["path"]),
                }
                for f in json.loads(body)["files"]
            ]
        }

    def batch(self, body: bytes, repo: str) -> dict[str, Any]:
        self.repo(repo, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server.lfs:
                upload = {"href": f"{self.server.storage}/{wanted['oid']}", "header": {}}
                verify = {"href": f"{self.server.url}/{repo}.git/info/lfs/verify", "header": {}}
                answer["actions"] = {"upload": upload, "verify": verify}
            objects.append(answer)
        return {"transfer": "basic", "objects": objects}

    def store(self, body: bytes, oid: str) -> dict[str, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content has another SHA-256")
        self.server.lfs[oid] = body
        return {}

    def verify(self, body: bytes, repo: str) -> dict[str, Any]:
        self.repo(repo, write=True)
        request = json.loads(body)
        if len(self.server.lfs.get(request["oid"], b"")) != request["size"]:
            raise Refused(404, "the object was not uploaded")
        return {}

    def commit(self, body: bytes, repo: str, revision: str) -> dict[str, Any]:
        found = self.repo(repo, write=True)
        head = self.at(found, revision)
        files = dict(found.commits[head])
        title = ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit", head) != head:
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif item["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]))
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.server.lfs:
                    raise Refused(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = File(self.server.lfs[value["oid"]], lfs=True)
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
            else:
                raise Refused(400, f"unknown operation {item['key']}")
        oid = found.commit(files, title)
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.server.url}/{repo}/commit/{oid}"}

    def tag(self, body: bytes, repo: str, revision: str) -> dict[str, Any]:
        found = self.repo(repo, write=True)
        name = json.loads(body)["tag"]
        if name in found.tags:
            raise Refused(409, "Tag reference exists already")
        found.tags[name] = self.at(found, revision)
        return {}

    def resolve(self, body: bytes, repo: str, revision: str, path: str) -> None:
        found = self.repo(repo)
        oid = self.at(found, revision)
        file = found.commits[oid].get(path)
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        if file.lfs:
            linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.sha256}"'}
            self.send(302, b"", {**headers, **linked, "Location": self.server.signed(file.sha256)})
        else:
            self.send_file(file.content, {**headers, "ETag": f'"{file.blob_id}"'})

    def stored(self, body: bytes, oid: str) -> None:
        if self.token is not None:
            raise Refused(400, "a token was sent to the storage host")
        if not self.server.signed(oid).endswith(self.path):
            raise Refused(403, "the address is not signed")
        if oid not in self.server.lfs:
            raise Refused(404, "no such object")
        self.send_file(self.server.lfs[oid], {"Accept-Ranges": "bytes", "ETag": f'"{oid}"'})

    def log_message(self, *values: object) -> None:
        """Quiet: `Hub.requests` is the log."""


def connect(patch: Any, hub: Hub, home: Path, token: str | None = None) -> None:
    """Make this process's huggingface_hub, which read its environment at import, talk to `hub` (`patch`: monkeypatch)."""
    from huggingface_hub import constants

    for name, value in {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
    }.items():
        patch.setattr(constants, name, value)
    patch.delenv("HF_TOKEN", raising=False)
    patch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    if token:
        patch.setenv("HF_TOKEN", token)


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """Serve from a thread."""
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A Hub on loopback for push and pull without the Hub.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--user", default="me", help="name of the user")
    parser.add_argument("--token", default="hf_test", help="the user's token, which may write")
    parser.add_argument("--home", default="hub-home", help="folder for the client's cache (HF_HOME)")
    options = parser.parse_args()
    hub = Hub({options.token: Token(options.user)}, port=options.port)
    for name, value in hub.environment(options.home, options.token).items():
        print(f"export {name}={value}", flush=True)
    print(f"# a Hub at {hub.url}; stop it with Ctrl-C", flush=True)
    try:
        hub.serve_forever()
    except KeyboardInterrupt:
        hub.server_close()


if __name__ == "__main__":
    main()
