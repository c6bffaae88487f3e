"""Who may speak with the server: our own check in front of every route, the page's and Gradio's included.

Against DNS rebinding the Host must be ours, against cross-site requests the sender must be this very page (or no browser at
all), and whoever is not on this machine must bring the password or the token.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
from urllib.parse import parse_qs, urlsplit

from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "easel_token"
MAX_BODY = 4 << 20  # bytes
MAX_PICTURES = 200 << 20  # bytes, where pictures may come in: two of the largest in base64
PICTURES_COME_IN = ("/api/v1/incoming", "/sdapi/v1/")
SLOW_DOWN = 0.5  # seconds before a wrong password is refused
CLOSED = ("/gradio_api/file", "/gradio_api/upload", "/gradio_api/proxy", "/gradio_api/deep_link", "/file", "/upload", "/proxy")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Guard:
    """ASGI middleware. `names` are the hosts the page may be called by besides this machine's own; None means any (`secret` is asked then).

    `auth` is "user:password", `token` is what a link carries once and a cookie afterwards; with neither nobody is asked.
    `framed` lets other sites show the page in a frame, as a hosted Space needs.
    """

    def __init__(self, app: ASGIApp, names: set[str] | None, auth: str | None, token: str | None, framed: bool = False) -> None:
        self._app = app
        self._names = None if names is None else {name.lower() for name in names} | _LOOPBACK
        self._auth = auth
        self._token = token
        self._framed = framed
        self._one_guess_at_a_time = asyncio.Lock()
        self._headers = _safe_headers(framed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None and (self._auth or self._token):
            refusal = self._challenge(scope)
            if refusal is not None and refusal.status_code == 401 and _values(scope, b"authorization"):
                async with self._one_guess_at_a_time:
                    await asyncio.sleep(SLOW_DOWN)
        if refusal is None:
            scope = {**scope, "headers": [(k, v) for k, v in scope["headers"] if not k.startswith(b"x-forwarded-")]}
            await self._app(scope, _bounded(receive, _longest(scope)), self._with_headers(send))
        elif scope["type"] == "http":
            await refusal(scope, receive, self._with_headers(send))
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> Response | None:
        hosts = _values(scope, b"host")
        if len(hosts) != 1:
            return PlainTextResponse("one Host header is needed", 400)
        name = _host_name(hosts[0])
        if name is None:
            return PlainTextResponse("the Host header is malformed", 400)
        if self._names is not None and name not in self._names:
            return PlainTextResponse(f"this page is not called {name}: open it by 127.0.0.1, or start it with --hosts {name}", 403)
        if not _same_site(scope, hosts[0], self._framed):
            return PlainTextResponse("another site may not act here", 403)
        if any(scope["path"].startswith(closed) for closed in CLOSED):
            return PlainTextResponse("files are not served by name", 403)
        length = (_values(scope, b"content-length") or ["0"])[0]
        if not length.isdigit() or int(length) > _longest(scope):
            return PlainTextResponse(f"more than {_longest(scope) >> 20} MB", 413)
        return None

    def _challenge(self, scope: Scope) -> Response | None:
        """None for who has shown the password or the token; else what to answer."""
        if self._auth and any(_equal(given, self._auth) for given in _basic(scope)):
            return None
        if self._token:
            cookie = cookie_parser("; ".join(_values(scope, b"cookie"))).get(COOKIE, "")
            bearer = [value[7:] for value in _values(scope, b"authorization") if value.lower().startswith("bearer ")]
            if any(_equal(given, self._token) for given in [*bearer, cookie]):
                return None
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if scope["type"] == "http" and scope["method"] == "GET" and _equal(given, self._token):
                entered = RedirectResponse(scope["path"] or "/", 303)
                entered.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
                return entered
        headers = {"WWW-Authenticate": 'Basic realm="Easel", charset="UTF-8"'} if self._auth else {}
        ask = "a user name and password are needed" if self._auth else "open the link that Easel printed at its start: it carries the token"
        return PlainTextResponse(ask, 401, headers)

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        return sending


def _safe_headers(framed: bool) -> list[tuple[bytes, bytes]]:
    headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
    if not framed:
        headers += [(b"content-security-policy", b"frame-ancestors 'none'"), (b"cross-origin-resource-policy", b"same-origin")]
    return headers


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _host_name(host: str) -> str | None:
    """The name in a Host header, lower case, without port, brackets and final dot; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path or parts.query or parts.username is not None:
        return None
    name = name.rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _same_site(scope: Scope, host: str, framed: bool) -> bool:
    """Whether the request comes from this page, from no page at all (typed, bookmarked, a program), or merely opens the page."""
    site = (_values(scope, b"sec-fetch-site") or [""])[0]
    origins = [origin.lower().partition("://")[2] for origin in _values(scope, b"origin")]
    if any(origin != host.lower() for origin in origins):
        return False
    if site in ("", "same-origin", "none"):
        return True
    opens = _values(scope, b"sec-fetch-mode") == ["navigate"]
    opens &= _values(scope, b"sec-fetch-dest") in ([["document"], ["iframe"]] if framed else [["document"]])
    return opens and scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"


def _basic(scope: Scope) -> list[str]:
    given = []
    for value in _values(scope, b"authorization"):
        kind, _, code = value.partition(" ")
        if kind.lower() == "basic":
            try:
                given.append(base64.b64decode(code, validate=True).decode())
            except (binascii.Error, UnicodeDecodeError):
                continue
    return given


def _equal(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _longest(scope: Scope) -> int:
    """How many bytes a body may have."""
    return MAX_PICTURES if scope["path"].startswith(PICTURES_COME_IN) else MAX_BODY


def _bounded(receive: Receive, longest: int) -> Receive:
    """The body cut off where it exceeds `longest`, for senders that do not say how long it is."""
    seen = 0

    async def receiving() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > longest else message

    return receiving
