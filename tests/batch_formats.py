"""The batch APIs of OpenAI, Azure and Anthropic, for ``batch_servers``."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from aiohttp import web

from tests.batch_servers import Batch, BatchServer, Body, Row, json_lines, page

MiB = 1 << 20
ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def duplicates(names: list[str]) -> list[str]:
    return [name for index, name in enumerate(names) if name in names[:index]] if len(set(names)) < len(names) else []


class OpenAIBatches(BatchServer):
    """Files and batches of OpenAI; Azure has the same under /openai, with an api-version and other endpoints."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        azure = self.format.model.startswith("azure/")
        self.endpoints = ("/chat/completions", "/v1/chat/completions") if azure else ("/v1/chat/completions",)
        for root in ("/openai", "/openai/v1") if azure else ("/v1",):
            router.add_post(f"{root}/files", self.call("upload", self._upload))
            router.add_get(f"{root}/files/{{id}}", self.call("file", self._file))
            router.add_get(f"{root}/files/{{id}}/content", self.call("download", self._content))
            router.add_delete(f"{root}/files/{{id}}", self.call("delete", self._delete))
            router.add_post(f"{root}/batches", self.call("create", self._create))
            router.add_get(f"{root}/batches", self.call("list", self._list))
            router.add_get(f"{root}/batches/{{id}}", self.call("poll", self._poll))
            router.add_post(f"{root}/batches/{{id}}/cancel", self.call("cancel", self._cancel))
        super().add_routes(router)

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        kind = "invalid_request_error" if status < 429 else "server_error"
        body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        return web.json_response(body, status=status, headers=headers)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        part = form.get("file")
        if form.get("purpose") != "batch" or not isinstance(part, web.FileField):
            return self.error(400, "expected multipart form data with a file and the purpose 'batch'")
        content = part.file.read()
        if len(content) > 200 * MiB:
            return self.error(413, "the file is larger than 200 MB")
        return web.json_response(self._new_file(content, part.filename, "batch"))

    def _new_file(self, content: bytes, name: str, purpose: str) -> Body:
        identity = f"file-{len(self.files) + 1}"
        info = {"id": identity, "object": "file", "bytes": len(content), "created_at": 1_700_000_000,
                "filename": name, "purpose": purpose, "status": "processed"}  # fmt: skip
        self.files[identity] = {"info": info, "content": content}
        return info

    async def _file(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        return web.json_response(file["info"]) if file else self.error(404, "No such File object")

    async def _content(self, request: web.Request) -> web.Response:
        file = self.files.get(request.match_info["id"])
        if file is None:
            return self.error(404, "No such File object")
        return web.Response(body=file["content"], content_type="application/octet-stream")

    async def _delete(self, request: web.Request) -> web.Response:
        identity = request.match_info["id"]
        if self.files.pop(identity, None) is None:
            return self.error(404, "No such File object")
        return web.json_response({"id": identity, "object": "file", "deleted": True})

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        file = self.files.get(body.get("input_file_id"))
        if file is None:
            return self.error(400, "No such input file")
        if body.get("completion_window") != "24h" or body.get("endpoint") not in self.endpoints:
            return self.error(400, "Invalid completion_window or endpoint")
        metadata = body.get("metadata") or {}
        if len(metadata) > 16 or any(len(key) > 64 or len(str(value)) > 512 for key, value in metadata.items()):
            return self.error(400, "Invalid metadata")
        lines = json_lines(file["content"])
        errors = self._invalid_lines(lines, body["endpoint"])
        rows = [] if errors else [(line["custom_id"], line["body"]) for line in lines]
        extra = {"request": body, "errors": errors, "total": len(lines)}
        return web.json_response(self._shown(self.new_batch("batch_{number:04d}", rows, extra)))

    def _invalid_lines(self, lines: list[Body], endpoint: str) -> list[Body]:
        """The errors of the validation, after which the whole batch fails."""
        if not lines or len(lines) > 50_000:
            return [{"code": "empty_file", "message": "The batch has no or too many requests.", "line": None}]
        if again := duplicates([line.get("custom_id", "") for line in lines]):
            return [{"code": "duplicate_custom_id", "message": f"duplicate {again[0]}", "line": None, "param": None}]
        if len({line.get("body", {}).get("model") for line in lines}) > 1:
            return [{"code": "mismatched_model", "message": "The model must be the same.", "line": 2, "param": None}]
        for number, line in enumerate(lines, 1):
            if line.get("method") != "POST" or line.get("url") != endpoint or not line.get("custom_id"):
                return [{"code": "invalid_line", "message": "Invalid request", "line": number, "param": None}]
        return []

    def _shown(self, batch: Batch) -> Body:
        request, created = batch.extra["request"], int(batch.created)
        errors = batch.extra["errors"]
        if "fail" in batch.step:
            errors = [{"code": "token_limit_exceeded", "message": batch.step["fail"], "line": None, "param": None}]
        status = self._status(batch, bool(errors))
        done = batch.count("succeeded") if batch.ended else int(batch.progress * batch.count("succeeded"))
        shown: Body = {
            "id": batch.identity, "object": "batch", "endpoint": request["endpoint"], "errors": None,
            "input_file_id": request["input_file_id"], "completion_window": "24h", "status": status,
            "output_file_id": None, "error_file_id": None, "created_at": created, "in_progress_at": None,
            "expires_at": int(batch.expires_at), "finalizing_at": None, "completed_at": None, "failed_at": None,
            "expired_at": None, "cancelling_at": None, "cancelled_at": None,
            "request_counts": {"total": batch.extra["total"], "completed": done, "failed": 0},
            "metadata": request.get("metadata"),
        }  # fmt: skip
        if status == "failed":
            shown |= {"errors": {"object": "list", "data": errors}, "failed_at": int(batch.ended_at)}
            shown["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        elif batch.ended:
            shown[f"{status}_at"] = int(batch.ended_at)
            shown["request_counts"]["failed"] = len(batch.rows) - done
            shown |= self._result_files(batch)
            if batch.step.get("empty ids"):
                shown |= {name: shown[name] or "" for name in ("output_file_id", "error_file_id")}
        return shown

    @staticmethod
    def _status(batch: Batch, invalid: bool) -> str:
        if not batch.ended:
            names = ("validating", "in_progress", "in_progress", "in_progress", "finalizing")
            return names[min(4, int(batch.progress * 5))]
        if invalid:
            return "failed"
        if batch.cancelled:
            return "cancelled"
        return "expired" if batch.count("expired") else "completed"

    def _result_files(self, batch: Batch) -> Body:
        if "files" not in batch.extra:
            rows = batch.ordered()
            good = [self._line(batch, row) for row in rows if row.end == "succeeded"]
            bad = [self._line(batch, row) for row in rows if row.end != "succeeded"]
            batch.extra["files"] = {
                name: self._new_file("".join(lines).encode(), f"{batch.identity}_{name}.jsonl", "batch_output")["id"]
                for name, lines in (("output_file_id", good), ("error_file_id", bad))
                if lines
            }
        files: Body = batch.extra["files"]
        return files

    def _line(self, batch: Batch, row: Row) -> str:
        line: Body = {"id": f"batch_req_{row.custom_id}", "custom_id": row.custom_id, "response": None, "error": None}
        if row.end == "expired":
            line["error"] = {"code": "batch_expired", "message": "This request could not be executed before the "
                             "completion window expired."}  # fmt: skip
        elif row.end == "canceled":
            line["error"] = {"code": "batch_cancelled", "message": "This request was cancelled."}
        else:
            failure = {"error": {"message": "The server had an error.", "type": "server_error", "code": None}}
            status = 500 if row.end == "errored" and row.status == 200 else row.status
            body = failure if row.end == "errored" else row.answer
            line["response"] = {"status_code": status, "request_id": f"req_{batch.number}", "body": body}
        return json.dumps(line) + "\n"

    async def _poll(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        return web.json_response(self._shown(batch)) if batch else self.error(404, "No batch found")

    async def _list(self, request: web.Request) -> web.Response:
        limit = min(100, int(request.query.get("limit", 20)))
        data, more = page([self._shown(batch) for batch in self.listed()], request.query.get("after"), limit)
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return web.json_response(
            {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}
        )  # fmt: skip

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        if batch is None:
            return self.error(404, "No batch found")
        self.cancel(batch)
        return web.json_response(self._shown(batch) | {"status": "cancelling", "cancelling_at": int(batch.ended_at)})


class AnthropicBatches(BatchServer):
    """Message Batches of Anthropic: no metadata, no files, results in any order."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        root = "/v1/messages/batches"
        router.add_post(root, self.call("create", self._create))
        router.add_get(root, self.call("list", self._list))
        router.add_get(f"{root}/{{id}}", self.call("poll", self._poll))
        router.add_get(f"{root}/{{id}}/results", self.call("download", self._results))
        router.add_post(f"{root}/{{id}}/cancel", self.call("cancel", self._cancel))
        super().add_routes(router)

    def denial(self, request: web.Request) -> web.Response | None:
        if not request.headers.get("anthropic-version"):
            return self.error(400, "anthropic-version: header is required")
        return super().denial(request)

    def error(self, status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error",
                 413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip
        error = {"type": kinds.get(status, "api_error"), "message": message}
        body = {"type": "error", "error": error, "request_id": "req_1"}
        return web.json_response(body, status=status, headers=headers)

    async def _create(self, request: web.Request) -> web.Response:
        requests = (await request.json()).get("requests")
        if not requests or len(requests) > 100_000:
            return self.error(400, "requests: expected 1 to 100000 requests")
        names = [str(item.get("custom_id")) for item in requests]
        if again := duplicates(names):
            return self.error(400, f"requests: custom_id must be unique, got {again[0]} twice")
        for number, item in enumerate(requests):
            if not ANTHROPIC_ID.fullmatch(str(item.get("custom_id"))):
                return self.error(400, f"requests.{number}.custom_id: String should match '^[a-zA-Z0-9_-]{{1,64}}$'")
            if not {"model", "messages", "max_tokens"} <= set(item.get("params", {})):
                return self.error(400, f"requests.{number}.params: Field required")
        rows = [(item["custom_id"], item["params"]) for item in requests]
        return web.json_response(self._shown(self.new_batch("msgbatch_{number:04d}", rows, {})))

    def _shown(self, batch: Batch) -> Body:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        if batch.ended:
            counts |= {name: batch.count(name) for name in ("succeeded", "canceled", "expired")}
            counts["errored"] = len(batch.rows) - sum(counts.values())
        else:
            counts["processing"] = len(batch.rows)
        results = f"http://127.0.0.1:{self.port}/v1/messages/batches/{batch.identity}/results"
        return {
            "id": batch.identity, "type": "message_batch", "request_counts": counts,
            "processing_status": "ended" if batch.ended else "in_progress",
            "created_at": iso(batch.created), "expires_at": iso(batch.expires_at), "archived_at": None,
            "ended_at": iso(batch.ended_at) if batch.ended else None,
            "cancel_initiated_at": iso(batch.cancelled) if batch.cancelled else None,
            "results_url": results if batch.ended else None,
        }  # fmt: skip

    async def _poll(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        return web.json_response(self._shown(batch)) if batch else self.error(404, "batch not found")

    async def _list(self, request: web.Request) -> web.Response:
        limit = min(1000, int(request.query.get("limit", 20)))
        data, more = page([self._shown(batch) for batch in self.listed()], request.query.get("after_id"), limit)
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return web.json_response({"data": data, "has_more": more, "first_id": first, "last_id": last})

    async def _results(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        if batch is None or not batch.ended:
            return self.error(404, "results are not available")
        lines = [json.dumps({"custom_id": row.custom_id, "result": self._result(row)}) for row in batch.ordered()]
        return web.Response(text="\n".join(lines) + "\n", content_type="application/x-jsonl")

    @staticmethod
    def _result(row: Row) -> Body:
        if row.end == "succeeded":
            return {"type": "succeeded", "message": row.answer}
        if row.end in ("expired", "canceled"):
            return {"type": row.end}
        failure = {"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}
        return {"type": "errored", "error": (row.answer or failure) | {"request_id": "req_1"}}

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.find(request.match_info["id"])
        if batch is None:
            return self.error(404, "batch not found")
        self.cancel(batch)
        return web.json_response(self._shown(batch) | {"processing_status": "canceling"})
