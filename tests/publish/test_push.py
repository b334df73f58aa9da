"""An upload, against a server of our own that notes what it is asked and answers as the Hub does."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dfad_bench.errors import DataError, DfadError, UsageError
from dfad_bench.publish.export_dataset import export_dataset
from dfad_bench.publish.push import push_folder
from tests.publish.test_export_dataset import a_source, rows_of

TOKEN = "hf_of_a_test"


class Hub:
    """A server of the Hub's calls that an upload makes; ``refuses``: the start of a path → the status it answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []
        self.refuses: dict[str, int] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Keep the test's output clean."""

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                lines = [json.loads(line) for line in body.splitlines() if line.strip()]
                hub.asked.append((self.command, self.path, self.headers.get("Authorization", ""), lines))
                status = next((code for start, code in hub.refuses.items() if self.path.startswith(start)), 200)
                answer = hub.answer(self.path, lines) if status == 200 else {"error": "refused"}
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, path: str, lines: list[Any]) -> dict[str, Any]:
        if path == "/api/repos/create":
            kind = {"dataset": "datasets/"}.get(lines[0].get("type", "model"), "")
            return {"url": f"{self.endpoint}/{kind}{lines[0]['organization']}/{lines[0]['name']}"}
        if "/preupload/" in path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in lines[0]["files"]
            ]
            return {"files": files}
        if "/commit/" in path:
            made = {"commitUrl": f"{self.endpoint}/datasets/org/toy/commit/{'a' * 40}", "commitOid": "a" * 40}
            pull = (
                {"pullRequestUrl": f"{self.endpoint}/datasets/org/toy/discussions/1"} if "create_pr=1" in path else {}
            )
            return {**made, **pull, "success": True, "hookOutput": ""}
        if "/discussions" in path:
            return {"num": 1, "title": "Upload", "createdAt": "2026-01-31T12:00:00.000Z", "status": "draft", "events": [],
                    "repo": {"name": "org/toy", "type": "dataset"}, "isPullRequest": True, "filesWithConflicts": [],
                    "changes": {"base": "refs/heads/main"}, "author": {"name": "org"}}  # fmt: skip
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        return {"id": "org/toy", "_id": "1", "sha": "b" * 40, "private": True, "tags": [], "siblings": []}

    def bodies(self, part: str) -> list[Any]:
        """Return the bodies of the calls whose path has ``part`` in it."""
        return [lines for _, path, _, lines in self.asked if part in path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants = pytest.importorskip("huggingface_hub.constants", reason="the package huggingface_hub is not installed")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    a_source(tmp_path / "data", rows_of({"real": 8, "simswap": 4}))
    export_dataset(tmp_path / "data", ["toy"], [], tmp_path / "out")
    return tmp_path / "out"


def uploaded(hub: Hub) -> set[str]:
    """Return the paths of the one commit."""
    (lines,) = hub.bodies("/commit/")
    return {line["value"]["path"] for line in lines if line["key"] == "file"}


def test_a_dataset_is_created_private_and_uploaded_as_one_commit(hub: Hub, exported: Path) -> None:
    (exported / "notes.txt").write_text("mine", encoding="utf-8")
    (exported / ".env").write_text("SECRET=1", encoding="utf-8")
    url = push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint, message="First")
    assert url == f"{hub.endpoint}/datasets/org/toy/commit/{'a' * 40}"
    ((created,),) = hub.bodies("/api/repos/create")
    assert (created["organization"], created["name"], created["type"]) == ("org", "toy", "dataset")
    assert created.get("private", created.get("visibility")) in (True, "private")
    assert uploaded(hub) == {"README.md", "croissant.json", "data/default-faces-00000.parquet"}
    (lines,) = hub.bodies("/commit/")
    assert next(line["value"]["summary"] for line in lines if line["key"] == "header") == "First"
    assert {token for _, path, token, _ in hub.asked if path.startswith("/api/datasets")} == {f"Bearer {TOKEN}"}
    assert any(path.startswith("/api/datasets/org/toy/commit/main") for _, path, _, _ in hub.asked)


def test_a_model_goes_public_to_a_branch_when_that_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model" / ".eval_results").mkdir(parents=True)
    (tmp_path / "model" / ".eval_results" / "demo.yaml").write_text("[]", encoding="utf-8")
    push_folder(
        tmp_path / "model", "org/toy", repo_type="model", private=False, revision="results", endpoint=hub.endpoint
    )
    ((created,),) = hub.bodies("/api/repos/create")
    assert created.get("private", created.get("visibility")) in (False, "public")
    assert any(path.startswith("/api/models/org/toy/commit/results") for _, path, _, _ in hub.asked)
    assert uploaded(hub) == {".eval_results/demo.yaml"}


def test_a_pull_request_creates_no_repository(hub: Hub, exported: Path) -> None:
    url = push_folder(exported, "org/toy", repo_type="dataset", create_pr=True, endpoint=hub.endpoint)
    assert url == f"{hub.endpoint}/datasets/org/toy/discussions/1"
    assert hub.bodies("/api/repos/create") == []
    assert uploaded(hub) == {"README.md", "croissant.json", "data/default-faces-00000.parquet"}
    with pytest.raises(UsageError, match="against main"):
        push_folder(exported, "org/toy", repo_type="dataset", create_pr=True, revision="v2", endpoint=hub.endpoint)


def test_a_card_that_the_hub_does_not_accept_is_told(hub: Hub, exported: Path) -> None:
    hub.refuses["/api/validate-yaml"] = 400
    with pytest.raises(DataError, match="does not accept the card"):
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)


@pytest.mark.parametrize(
    ("path", "status", "kind", "told"),
    [
        ("/api/", 401, DataError, r"does not accept the token for org/toy \(401\).*hf auth login"),
        ("/api/", 403, DataError, r"may not write to the dataset org/toy \(403\).*--create-pr"),
        ("/api/datasets/org/toy/preupload", 404, UsageError, r"no dataset org/toy on the Hub.*\(404\)"),
        ("/api/repos/create", 500, DataError, r"cannot answer now \(500\).*later"),
        ("/api/datasets/org/toy/commit", 400, DataError, r"refused org/toy \(400\)"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line(
    path: str, status: int, kind: type[DfadError], told: str, hub: Hub, exported: Path
) -> None:
    hub.refuses[path] = status
    with pytest.raises(kind, match=told) as caught:
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(hub: Hub, exported: Path) -> None:
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9 cannot be reached .*where there is a network"
    ) as caught:
        push_folder(exported, "org/toy", repo_type="dataset", endpoint="http://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_offline_is_told_in_one_line(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE"):
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    assert hub.asked == []


def test_without_a_token_nothing_is_asked(hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UsageError, match="hf auth login"):
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    assert hub.asked == []


def test_without_the_extra_one_line_says_what_to_install(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"pip install 'dfad-bench\[hub\]'"):
        push_folder(exported, "org/toy", repo_type="dataset")


def test_a_name_that_is_none_is_told(hub: Hub, exported: Path) -> None:
    with pytest.raises(UsageError, match="Give owner/name"):
        push_folder(exported, "org/toy/more", repo_type="dataset", endpoint=hub.endpoint)


def test_a_folder_that_was_not_exported_or_was_changed_is_not_uploaded(
    hub: Hub, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "faces").mkdir()
    with pytest.raises(UsageError, match="no folder with files"):
        push_folder(tmp_path / "faces", "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    (tmp_path / "faces" / "1.png").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"lacks README\.md or croissant\.json"):
        push_folder(tmp_path / "faces", "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    shard = exported / "data" / "default-faces-00000.parquet"
    shard.write_bytes(shard.read_bytes() + b"\0")
    with pytest.raises(DataError, match="is not the file that was exported"):
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    (exported / "croissant.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="does not list files"):
        push_folder(exported, "org/toy", repo_type="dataset", endpoint=hub.endpoint)
    assert hub.asked == []
