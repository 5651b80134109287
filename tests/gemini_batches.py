"""The batch API of Gemini, for ``batch_servers``."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.batch_formats import MiB
from tests.batch_servers import Batch, BatchServer, Body, Row, json_lines

GOOGLE_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch"
GOOGLE_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
                 500: "INTERNAL", 503: "UNAVAILABLE"}  # fmt: skip


def nanoseconds(seconds: float) -> str:
    """A timestamp as Google writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f525Z")


class GeminiBatches(BatchServer):
    """Batches of the Gemini API: operations, with requests and responses inline or in files."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        for version in ("/v1beta", "/v1"):
            router.add_post(f"{version}/models/{{model}}:batchGenerateContent", self.call("create", self._create))
            router.add_get(f"{version}/batches", self.call("list", self._list))
            router.add_get(f"{version}/batches/{{id}}", self.call("poll", self._poll))
            router.add_post(f"{version}/batches/{{id}}:cancel", self.call("cancel", self._cancel))
            router.add_post(f"/upload{version}/files", self.call("upload start", self._start_upload))
            router.add_post(f"/upload{version}/files/{{id}}", self.call("upload", self._upload))
            router.add_get(f"{version}/files/{{id}}:download", self.call("download", self._content))
            router.add_get(f"/download{version}/files/{{id}}:download", self.call("download", self._content))
            router.add_get(f"{version}/files/{{id}}", self.call("file", self._file))
        super().add_routes(router)

    def denial(self, request: web.Request) -> web.Response | None:
        # The address of an upload contains its permission.
        return None if request.path.startswith("/upload/v1beta/files/") else super().denial(request)

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        error = {"code": status, "message": message, "status": GOOGLE_STATUS.get(status, "UNKNOWN")}
        return web.json_response({"error": error}, status=status, headers=headers)

    async def _create(self, request: web.Request) -> web.Response:
        sent = camel(await request.json())
        batch = sent.get("batch") or {}
        config = batch.get("inputConfig") or {}
        if not batch.get("displayName") or not config:
            return self.error(400, "batch.display_name and batch.input_config are required")
        if len(await request.read()) > 20 * MiB:
            return self.error(400, "Request payload size exceeds the limit: 20971520 bytes.")
        if "fileName" in config:
            file = self.files.get(config["fileName"].removeprefix("files/"))
            if file is None:
                return self.error(404, "File not found")
            lines = [camel(line) for line in json_lines(file["content"])]
            if not all("request" in line for line in lines):
                return self.error(400, "The input file has a line without a request.")
            rows = [(line.get("key", ""), line["request"]) for line in lines]
        else:
            items = config["requests"]["requests"]
            rows = [((item.get("metadata") or {}).get("key", ""), item["request"]) for item in items]
        model = f"models/{request.match_info['model']}"
        extra = {"name": batch["displayName"], "model": model, "file": config.get("fileName")}
        created = self.new_batch("batches/{number:04d}", rows, extra)
        if created.step.get("expire"):
            for row in created.rows:
                if row.end != "expired":
                    self._take_back(row)
                    row.end = "expired"
        return web.json_response(self._shown(created))

    def _state(self, batch: Batch) -> str:
        if not batch.ended:
            return "PENDING" if batch.progress < 0.3 else "RUNNING"
        if "fail" in batch.step:
            return "FAILED"
        if batch.cancelled:
            return "CANCELLED"
        return "EXPIRED" if batch.step.get("expire") else "SUCCEEDED"

    def _shown(self, batch: Batch, results: bool = False) -> Body:
        state, total = self._state(batch), len(batch.rows)
        stats = {"requestCount": str(total), "pendingRequestCount": str(total)}
        if batch.ended:
            good = batch.count("succeeded")
            # A count of zero is left out.
            counts = {"successfulRequestCount": good, "failedRequestCount": total - good}
            stats = {"requestCount": str(total)} | {name: str(count) for name, count in counts.items() if count}
        source = {"inputConfig": {"fileName": batch.extra["file"]}} if batch.extra["file"] else {}
        shown: Body = {
            "name": batch.identity,
            "metadata": {
                "@type": GOOGLE_TYPE, "model": batch.extra["model"], "displayName": batch.extra["name"], **source,
                "createTime": nanoseconds(batch.created), "updateTime": nanoseconds(min(time.time(), batch.ended_at)),
                "batchStats": stats, "state": f"BATCH_STATE_{state}", "name": batch.identity,
            },
        }  # fmt: skip
        if batch.ended:
            shown["done"] = True
            shown["metadata"]["endTime"] = nanoseconds(batch.ended_at)
            ends = {"FAILED": (13, batch.step.get("fail")), "CANCELLED": (1, "The operation was cancelled."),
                    "EXPIRED": (4, "The batch expired before it was processed.")}  # fmt: skip
            if state in ends:
                shown["error"] = dict(zip(("code", "message"), ends[state], strict=True))
            elif results and batch.polls > batch.step.get("no results", 0):
                output = self._output(batch)
                shown["metadata"]["output"] = output
                shown["response"] = {"@type": f"{GOOGLE_TYPE}Output"} | output
        return shown

    def _output(self, batch: Batch) -> Body:
        rows = batch.ordered()
        if not batch.extra["file"]:
            labels: list[Body] = [
                {} if batch.step.get("unlabelled") else {"metadata": {"key": row.custom_id}} for row in rows
            ]
            items = [self._item(row) | label for row, label in zip(rows, labels, strict=True)]
            return {"inlinedResponses": {"inlinedResponses": items}}
        name = batch.identity.replace("batches/", "batch-")
        lines = [json.dumps({"key": row.custom_id} | self._item(row)) + "\n" for row in rows]
        self.files[name] = {"content": "".join(lines).encode(), "name": name}
        return {"responsesFile": f"files/{name}"}

    @staticmethod
    def _item(row: Row) -> Body:
        if row.end == "succeeded":
            return {"response": row.answer}
        error = row.answer.get("error") or {"message": "The operation was cancelled."}
        return {"error": {"code": 13 if row.answer else 1, "message": error["message"]}}

    async def _poll(self, request: web.Request) -> web.Response:
        batch = self.find(f"batches/{request.match_info['id']}")
        return web.json_response(self._shown(batch, True)) if batch else self.error(404, "Batch not found")

    async def _list(self, request: web.Request) -> web.Response:
        start, size = int(request.query.get("pageToken") or 0), int(request.query.get("pageSize") or 50)
        listed = self.listed()
        body: Body = {"operations": [self._shown(batch) for batch in listed[start : start + size]]}
        if start + size < len(listed):
            body["nextPageToken"] = str(start + size)
        return web.json_response(body)

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.find(f"batches/{request.match_info['id']}")
        if batch is None:
            return self.error(404, "Batch not found")
        self.cancel(batch)
        return web.json_response({})

    async def _start_upload(self, request: web.Request) -> web.Response:
        name = f"file{len(self.files) + 1}"
        sent = camel(await request.json())["file"]
        self.files[name] = {"content": b"", "name": name, "title": sent.get("displayName", "")}
        address = f"http://127.0.0.1:{self.port}/upload/v1beta/files/{name}?upload_id=1"
        return web.json_response({}, headers={"X-Goog-Upload-URL": address, "X-Goog-Upload-Status": "active"})

    async def _upload(self, request: web.Request) -> web.Response:
        file = self.files[request.match_info["id"]]
        file["content"] += await request.read()
        status = "final" if "finalize" in request.headers.get("X-Goog-Upload-Command", "") else "active"
        return web.json_response({"file": self._info(file)}, headers={"X-Goog-Upload-Status": status})

    def _info(self, file: Body) -> Body:
        title = {"displayName": file["title"]} if file.get("title") else {}
        return {"name": f"files/{file['name']}", **title, "sizeBytes": str(len(file["content"])), "state": "ACTIVE",
                "mimeType": "application/jsonl", "createTime": nanoseconds(0), "updateTime": nanoseconds(0),
                "uri": f"http://127.0.0.1:{self.port}/v1beta/files/{file['name']}"}  # fmt: skip

    async def _file(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        return web.json_response(self._info(file)) if file else self.error(404, "File not found")

    async def _content(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        if file is None:
            return self.error(404, "File not found")
        return web.Response(body=file["content"], content_type="application/jsonl")


def camel(value: Any) -> Any:
    """An object with the names of protobuf's JSON; proto names are accepted too, as the API does."""
    if isinstance(value, dict):
        return {re.sub(r"_(.)", lambda match: match[1].upper(), name): camel(item) for name, item in value.items()}
    return [camel(item) for item in value] if isinstance(value, list) else value
