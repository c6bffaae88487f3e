"""`serve`: the page and the API. Something answers at once; Gradio is mounted behind it when it has been imported."""

import argparse
import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import typing
import webbrowser
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from modules.api.door import Door
from modules.api.guard import Guard
from modules.commands.options import add_settings, fail, settings_of
from modules.settings import DEFAULT_PORT, Settings

if typing.TYPE_CHECKING:
    from modules.jobs.desk import Desk

ELSEWHERE = [  # what people's start scripts for the AUTOMATIC1111 web UI hold, and Easel decides by itself
    *("--xformers", "--medvram", "--medvram-sdxl", "--lowvram", "--lowram", "--no-half", "--no-half-vae", "--upcast-sampling", "--api"),
    *("--opt-sdp-attention", "--opt-sdp-no-mem-attention", "--opt-split-attention", "--opt-sub-quad-attention", "--opt-channelslast"),
    *("--skip-torch-cuda-test", "--skip-python-version-check", "--skip-version-check", "--skip-install", "--disable-nan-check"),
    *("--no-download-sd-model", "--no-hashing", "--update-check", "--enable-insecure-extension-access"),
]
CONNECTIONS = 250  # more at once are refused; the usual limit on open files is 1024, or 256 on a Mac
PORTS = 100  # how many ports are tried when none was asked for


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("serve", help="open the page (the default)", allow_abbrev=False)
    add_settings(parser, list(Settings.model_fields))
    parser.add_argument(*ELSEWHERE, dest="elsewhere", action="store_true", help=argparse.SUPPRESS)


def main(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    if arguments.elsewhere:
        print("easel: flags of other UIs that have no meaning here (--xformers, --medvram and the like) are ignored", file=sys.stderr)
    hosted = "SPACE_ID" in os.environ
    if hosted:
        settings = settings.model_copy(update={"listen": True, "port": DEFAULT_PORT})
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for ending in (signal.SIGINT, signal.SIGTERM):  # uvicorn hears them, and raises them again when nothing is left to do
        signal.signal(ending, lambda *_: None)
    try:
        with _locked(settings.state) as lock, _bound("0.0.0.0" if settings.listen else "127.0.0.1", settings.port) as listener:
            asyncio.run(_serve(settings, listener, hosted, lock))
    except OSError as error:
        return fail(str(error), 1)
    return 0


async def _serve(settings: Settings, listener: socket.socket, hosted: bool, lock: Path | None) -> None:
    token = secrets.token_urlsafe(16) if settings.listen and not settings.auth and not hosted else None
    anyone_may_name_us = hosted or settings.auth or token
    door = Door()
    guard = Guard(door, None if anyone_may_name_us else set(settings.hosts), settings.auth, token, framed=hosted)
    server = uvicorn.Server(
        uvicorn.Config(
            guard,
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            limit_concurrency=CONNECTIONS,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    desk = await asyncio.to_thread(_desk, settings)
    try:
        app = await asyncio.to_thread(_house, desk, server)
        async with app.router.lifespan_context(app):
            door.app = app
            _announce(settings, listener.getsockname()[1], token, lock)
            await serving
    finally:
        server.should_exit = True
        desk.close()
        await serving
    os._exit(0)  # all is written; a thread that hangs in somebody's file must not keep the process


def _desk(settings: Settings) -> "Desk":
    from modules.jobs.desk import Desk

    desk = Desk(settings)
    desk.open()
    return desk


def _house(desk: "Desk", server: uvicorn.Server) -> ASGIApp:
    """The whole application: our routes before Gradio's page, which takes all the rest. Imports Gradio, which takes seconds."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gradio
    from fastapi import FastAPI

    from modules.api import extras, sdapi
    from modules.api.routes import explain_errors, router
    from modules.ui.page import build, page_options

    app = FastAPI(title="Easel", docs_url=None, redoc_url=None, openapi_url="/api/v1/openapi.json")
    app.state.closing = lambda: server.should_exit
    app.include_router(router(desk))
    app.include_router(extras.router(desk))
    app.include_router(sdapi.router(desk))  # the last, for it answers all that is below its address
    explain_errors(app)
    return gradio.mount_gradio_app(app, build(desk), path="/", **page_options())


def _announce(settings: Settings, port: int, token: str | None, lock: Path | None) -> None:
    url = f"http://127.0.0.1:{port}"
    if lock:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            lock.write_text(f"{url} (process {os.getpid()})")
    print(f"Running on local URL:  {url}", flush=True)
    if settings.listen:
        print(f"Other machines:        http://{socket.gethostname()}:{port}{f'/?token={token}' if token else ''}", flush=True)
    if settings.autolaunch:
        webbrowser.open(f"{url}/?token={token}" if token else url)


@contextlib.contextmanager
def _locked(state: Path) -> Iterator[Path | None]:
    """One server a folder: OSError if another has it. A folder that cannot be written is not locked."""
    path = state / "server.lock"
    with contextlib.ExitStack() as stack:
        try:
            state.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(path, "a+"))
        except OSError:
            yield None
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            where = path.read_text() or "starting just now"
            raise OSError(f"Easel already runs on this folder: {where}. Stop it, or use another --data-dir") from None
        file.truncate(0)
        yield path


def _bound(address: str, port: int | None) -> socket.socket:
    """A listening socket on `port`, or on the first free one from 7860 on. OSError says in one line what is in the way."""
    for candidate in [port] if port else range(DEFAULT_PORT, DEFAULT_PORT + PORTS):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, candidate))
            listener.listen(128)
        except OSError as error:
            listener.close()
            if error.errno == errno.EACCES:
                raise OSError(f"port {candidate} is not allowed for this user: choose one above 1023 with --port") from None
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return listener
    taken = f"port {port} is" if port else f"the ports {DEFAULT_PORT} to {DEFAULT_PORT + PORTS - 1} are"
    raise OSError(f"{taken} taken: choose another with --port{', or leave --port out' if port else ''}")
