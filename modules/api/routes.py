"""Our own API, /api/v1: what the page's scripts and other programs use. Everything is named by id; no route takes a path."""

import asyncio
import base64
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Annotated, TypeVar

from fastapi import APIRouter, Body, FastAPI, HTTPException, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image

from modules.gallery.pictures import Entry
from modules.incoming.reader import BadPicture
from modules.incoming.shelf import ID
from modules.jobs.desk import Desk
from modules.jobs.queue import QueueFull
from modules.model_manager.loras import called
from modules.png import packed
from modules.recipe.fields import MAX_PROMPT, BadField

COALESCE = 0.1  # seconds between two events of a stream at least
KEEP_ALIVE = 15.0  # seconds
THUMBNAIL = 256  # pixels
Id = Annotated[int, Path(ge=0, lt=2**62)]
Hash = Annotated[str, Path(pattern=f"^{ID.pattern}$")]
Result = TypeVar("Result")
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


def router(desk: Desk) -> APIRouter:
    """All routes, for the desk they speak to."""
    routes = APIRouter(prefix="/api/v1")
    _add_jobs(routes, desk)
    _add_pictures(routes, desk)
    _add_incoming(routes, desk)
    _add_models(routes, desk)
    _add_trainings(routes, desk)

    @routes.get("/state")
    def state() -> dict[str, object]:
        return desk.snapshot()

    @routes.get("/events")
    def events(request: Request) -> StreamingResponse:
        return StreamingResponse(_events(desk, request), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @routes.post("/tokens")
    def tokens(text: Annotated[str, Body(embed=True, max_length=MAX_PROMPT)]) -> dict[str, int]:
        count, limit = desk.count_tokens(text)
        return {"tokens": count, "limit": limit}

    return routes


def explain_errors(app: FastAPI) -> None:
    """Short answers for what no route foresees: a body that is no request, a database that another program holds."""

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        return JSONResponse({"field": field, "message": f"{field}: {first['msg']}"}, 422)

    @app.exception_handler(BadField)
    def refused(request: Request, error: BadField) -> JSONResponse:
        return JSONResponse({"field": error.field, "message": str(error)}, 503 if isinstance(error, QueueFull) else 422)

    @app.exception_handler(sqlite3.OperationalError)
    def busy(request: Request, error: sqlite3.OperationalError) -> JSONResponse:
        return JSONResponse({"field": "", "message": f"the queue cannot be used right now ({error}): try again"}, 503)


def _add_jobs(routes: APIRouter, desk: Desk) -> None:
    @routes.post("/jobs", status_code=201)
    def submit(request: dict[str, object]) -> dict[str, int]:
        return {"job": desk.submit(request)}

    @routes.post("/upscale", status_code=201)
    def upscale(request: dict[str, object]) -> dict[str, int]:
        (job,) = desk.upscale([request])
        return {"job": job}

    @routes.get("/jobs")
    def jobs(id: Annotated[list[Annotated[int, Query(ge=0, lt=2**62)]], Query(max_length=1000)]) -> list[dict[str, object]]:
        """How these jobs stand, and their pictures."""
        found = filter(None, map(desk.job, id))
        return [
            {"job": job.id, "state": job.state, "reason": job.reason, "pictures": [_shown(entry) for entry in desk.gallery.of_job(job.id)]}
            for job in found
        ]

    @routes.delete("/jobs/{job}")
    def drop(job: Id) -> dict[str, bool]:
        return {"dropped": desk.drop(job)}

    @routes.post("/interrupt")
    def interrupt() -> dict[str, bool]:
        return {"interrupted": desk.interrupt()}

    @routes.post("/skip")
    def skip() -> dict[str, bool]:
        return {"skipped": desk.skip()}


def _add_pictures(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/pictures")
    def pictures(limit: int = 60, before: Annotated[int, Query(ge=0, lt=2**62)] | None = None) -> list[dict[str, object]]:
        return [_shown(entry) for entry in desk.gallery.latest(min(max(limit, 1), 500), before)]

    @routes.get("/pictures/{id}")
    def picture(id: Id) -> Response:
        return Response(_png(desk, id), media_type="image/png", headers=FOREVER)

    @routes.get("/pictures/{id}/thumbnail")
    def thumbnail(id: Id) -> Response:
        small = io.BytesIO()
        try:
            with Image.open(io.BytesIO(_png(desk, id)), formats=["PNG"]) as image:
                image.thumbnail((THUMBNAIL, THUMBNAIL))
                image.convert("RGB").save(small, "WEBP", quality=85)
        except OSError as error:
            raise HTTPException(404, f"picture {id} is damaged: {error}") from None
        except Image.DecompressionBombError:
            raise HTTPException(404, f"picture {id} is too large for a thumbnail") from None
        return Response(small.getvalue(), media_type="image/webp", headers=FOREVER)

    @routes.post("/pictures/{id}/save")
    def save(id: Id) -> dict[str, object]:
        try:
            return _shown(desk.save_again(id))
        except LookupError as error:
            raise HTTPException(404, str(error)) from None


def _add_incoming(routes: APIRouter, desk: Desk) -> None:
    """Pictures that are to be changed, and masks: in as files of any kind, out as PNG."""

    def shown(id: str) -> dict[str, object]:
        width, height = desk.shelf.size_of(id)
        return {"id": id, "width": width, "height": height, "url": f"/api/v1/incoming/{id}"}

    @routes.post("/incoming", status_code=201)
    async def take_in(request: Request) -> dict[str, object]:
        data = await request.body()
        return await asyncio.to_thread(lambda: shown(_taken(desk.take_in, data)))

    @routes.post("/pictures/{id}/incoming", status_code=201)
    def take_from_the_gallery(id: Id) -> dict[str, object]:
        return shown(_taken(desk.take_in, _png(desk, id)))

    @routes.get("/incoming/{id}")
    def incoming(id: Hash) -> Response:
        picture = _taken(desk.shelf.picture, id)
        return Response(packed(picture.image, profile=picture.profile), media_type="image/png", headers=FOREVER)


def _taken(take: Callable[..., Result], *values: object) -> Result:
    try:
        return take(*values)
    except BadPicture as error:
        raise HTTPException(422, str(error)) from None
    except LookupError as error:
        raise HTTPException(404, str(error)) from None


def _add_models(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/models")
    def models() -> list[dict[str, object]]:
        shown = ("name", "status", "reason", "family", "native_size")
        return [{name: getattr(checkpoint, name) for name in shown} for checkpoint in desk.checkpoints()]

    @routes.get("/models/refused")
    def refused() -> list[dict[str, str]]:
        return desk.refused()

    @routes.get("/loras")
    def loras() -> list[dict[str, object]]:
        """Every LoRA file there is; `call` is the name that a prompt calls it by, "" for one that cannot be used."""
        listed = desk.loras()
        calls = {lora.name: call for call, lora in called(listed).items()}
        return [{"name": lora.name, "call": calls.get(lora.name, ""), "about": lora.about, "reason": lora.reason} for lora in listed]

    @routes.get("/upscalers")
    def upscalers() -> list[dict[str, object]]:
        return [{name: getattr(each, name) for name in ("name", "status", "reason", "scale", "about")} for each in desk.upscalers()]

    @routes.post("/models/refresh")
    def refresh() -> list[dict[str, object]]:
        desk.refresh_checkpoints()
        return models()


def _add_trainings(routes: APIRouter, desk: Desk) -> None:
    """How they stand is in the state; DELETE /jobs/ID cancels one."""

    @routes.post("/train", status_code=201)
    def train(request: dict[str, object]) -> dict[str, int]:
        return {"job": desk.trainings.submit(request)}

    @routes.post("/train/{id}/resume")
    def resume(id: Id) -> dict[str, bool]:
        return {"resumed": desk.trainings.resume(id)}


def _png(desk: Desk, id: int) -> bytes:
    try:
        return desk.gallery.png(id)
    except LookupError as error:
        raise HTTPException(404, str(error)) from None


def _shown(entry: Entry) -> dict[str, object]:
    url, when = f"/api/v1/pictures/{entry.id}", f"?v={int(entry.created * 1e6)}"  # ids begin anew with a new store; browsers remember
    return {**asdict(entry), "url": url + when, "thumbnail": f"{url}/thumbnail{when}"}


async def _events(desk: Desk, request: Request) -> AsyncIterator[str]:
    """The snapshot whenever it changed and the newest preview, as server-sent events, until the page or the server goes."""
    version = preview = None
    silent = 0.0
    while not (request.app.state.closing() or await request.is_disconnected()):
        silent += COALESCE
        if desk.version != version:
            version, silent = desk.version, 0.0
            yield _event("state", await asyncio.to_thread(desk.snapshot))
        if (newest := desk.preview()) is not None and newest is not preview and newest != preview:
            preview = newest
            job, picture, jpeg = newest
            image = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
            yield _event("preview", {"job": job, "picture": picture, "image": image})
        if silent >= KEEP_ALIVE:
            silent = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(COALESCE)


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
