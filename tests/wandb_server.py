"""The little of the W&B service that a run speaks to: runs are made and resumed, and history is kept. On loopback."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "likeness", "entity": {"id": "e", "name": "somebody"}}


class Service:
    """What the service was told, by run id."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, dict[int, str]] = {}
        self.summary: dict[str, str] = {}
        self.url = ""

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for _, line in sorted(self.history.get(run_id, {}).items())]

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self._upsert(variables), "inserted": True}}
        if "RunResumeStatus" in query:
            return {"model": {**PROJECT, "bucket": self._resumed(variables["name"])}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}
        return {}

    def stream(self, run_id: str, files: dict[str, Any]) -> None:
        for number, line in enumerate(files.get("wandb-history.jsonl", {}).get("content", [])):
            self.history.setdefault(run_id, {})[files["wandb-history.jsonl"]["offset"] + number] = line
        for line in files.get("wandb-summary.json", {}).get("content", []):
            self.summary[run_id] = line

    def _upsert(self, variables: dict[str, Any]) -> dict[str, Any]:
        run_id = variables["name"]
        run = self.runs.setdefault(run_id, {})
        run.update({key: value for key, value in variables.items() if value is not None})
        return {
            "id": run_id,
            "name": run_id,
            "displayName": run.get("displayName", run_id),
            "description": "",
            "config": run.get("config", "{}"),
            "sweepName": None,
            "project": PROJECT,
            "historyLineCount": len(self.history.get(run_id, {})),
        }

    def _resumed(self, run_id: str) -> dict[str, Any] | None:
        if run_id not in self.runs:
            return None
        lines = [line for _, line in sorted(self.history.get(run_id, {}).items())]
        return {
            "id": run_id,
            "name": run_id,
            "displayName": run_id,
            "notes": "",
            "tags": [],
            "config": self.runs[run_id].get("config", "{}"),
            "wandbConfig": '{"t": 1}',
            "summaryMetrics": self.summary.get(run_id, "{}"),
            "historyLineCount": len(lines),
            "historyTail": json.dumps(lines[-1:]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
        }


@contextmanager
def service() -> Iterator[Service]:
    """The service while the context lasts; afterwards nobody answers at its address."""
    told = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer: dict[str, Any] = {}
            if self.path == "/graphql":
                asked = json.loads(body)
                answer = {"data": told.answer(asked["query"], asked.get("variables") or {})}
            elif found := re.fullmatch(r"/files/.*/(\w+)/file_stream", self.path):
                told.stream(found[1], json.loads(body).get("files") or {})
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
