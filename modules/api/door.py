"""What answers while the house behind it is still being built."""

from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SPLASH = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="1"><meta name="color-scheme" content="light dark"><title>Easel</title>
<body style="font:16px system-ui;display:grid;place-items:center;height:90vh;margin:0"><p role="status">Easel is starting…</p>"""


class Door:
    """An ASGI app that shows a splash until `app` is there, and is that app afterwards."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            wait = JSONResponse({"message": "Easel is starting"}, 503, {"Retry-After": "1"})
            await (HTMLResponse(SPLASH) if scope["path"] == "/" else wait)(scope, receive, send)
