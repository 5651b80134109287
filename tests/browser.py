"""A page in headless Chromium over its DevTools protocol: what it logs, what it requests, and what a script sees."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
"""The browser; None where there is none."""


@dataclass
class Page:
    """An open page."""

    socket: aiohttp.ClientWebSocketResponse
    logged: list[str] = field(default_factory=list)
    """Console messages, exceptions and violations of the content security policy."""
    requested: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    _number: int = 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come meanwhile are recorded."""
        self._number += 1
        await self.socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await self.socket.receive_json(timeout=60)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._record(message)

    def _record(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.logged += [str(argument.get("value")) for argument in params["args"]]
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.logged.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.logged.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])

    async def script(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def screenshot(self, path: Path) -> None:
        """Save the whole page."""
        height = await self.script("document.documentElement.scrollHeight")
        width = await self.script("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or the name of a key."""
        for key in keys:
            code = {"Enter": 13, "Escape": 27, "Tab": 9}.get(key)
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            event = {"key": key} if code is None else {"key": key, "code": key, "windowsVirtualKeyCode": code}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    async def click(self, element: str) -> None:
        """Click the middle of the element that an expression gives, after scrolling to it."""
        middle = (
            f"(() => {{ const element = {element}; element.scrollIntoView({{ block: 'center' }});"
            " const box = element.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        x, y = await self.script(middle)
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


@asynccontextmanager
async def opened(file: Path, *, width: int = 1200, scheme: str = "light", scripts: bool = True) -> AsyncIterator[Page]:
    """Open a file in a browser of its own and wait until it is loaded.

    Args:
        scripts: whether the scripts of the page run.
    """
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(prefix="spot-browser-", ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "--disable-background-networking"]
        process = subprocess.Popen([CHROMIUM, *options, "about:blank"], stderr=subprocess.DEVNULL)
        try:
            port = await _port(Path(profile))
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                    targets = json.loads(await response.text())
                address = next(item["webSocketDebuggerUrl"] for item in targets if item["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    page = Page(socket)
                    await page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
                    await _load(page, file, width, scheme)
                    yield page
        finally:
            process.terminate()
            process.wait(30)


async def _port(profile: Path) -> int:
    file = profile / "DevToolsActivePort"
    for _ in range(600):
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        await asyncio.sleep(0.05)
    raise AssertionError("the browser did not start")


async def _load(page: Page, file: Path, width: int, scheme: str) -> None:
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page.call(f"{domain}.enable")
    mobile = width < 600
    await page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile)
    await page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    await page.call("Page.navigate", url=file.resolve().as_uri())
    for _ in range(600):
        if await page.script("document.readyState") == "complete":
            # Parts with ``content-visibility: auto`` have no text before the first frame is drawn.
            await page.call("Page.captureScreenshot", clip={"x": 0, "y": 0, "width": 1, "height": 1, "scale": 1})
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the page did not load")
