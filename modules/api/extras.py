"""What the AUTOMATIC1111 web UI calls extras, in its REST API: pictures made larger, one or many, and what can do it.

Every picture is a job like any other, so the results are saved like any others, and the answer waits for their end.
"""

import asyncio
import base64
from collections.abc import Mapping
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import Response

from modules.api.sdapi import Body, Refused, answered, ended, number, parsed, taken_in, to_json
from modules.jobs.desk import Desk
from modules.jobs.queue import Job
from modules.model_manager.upscalers import Upscaler
from modules.recipe.upscaling import MAX_NAME, NO_SECOND

MAX_PICTURES = 1000  # in one request
NONE = "None"  # the first of all lists of upscalers, for clients that look for it


def router(desk: Desk) -> APIRouter:
    """The routes, each with and without a slash at its end."""
    routes = APIRouter(prefix="/sdapi/v1")

    @routes.post("/extra-single-image")
    @routes.post("/extra-single-image/", include_in_schema=False)
    async def single(request: Request) -> Response:
        async def answer() -> dict[str, object]:
            body = parsed(await request.body())
            (job,) = await asyncio.to_thread(_submitted, desk, body, [{"data": body.get("image"), "name": ""}])
            (image,) = await _finished(desk, [job])
            return {"html_info": await asyncio.to_thread(_told, desk, [job]), "image": image}

        return await answered(answer())

    @routes.post("/extra-batch-images")
    @routes.post("/extra-batch-images/", include_in_schema=False)
    async def batch(request: Request) -> Response:
        async def answer() -> dict[str, object]:
            body = parsed(await request.body())
            pictures = body.get("imageList")
            if not isinstance(pictures, list) or not pictures or not all(isinstance(each, dict) for each in pictures):
                raise Refused(422, "imageList: a list of pictures is needed, each with data and name")
            if len(pictures) > MAX_PICTURES:
                raise Refused(422, f"imageList: {len(pictures)} pictures are more than {MAX_PICTURES} in one request")
            jobs = await asyncio.to_thread(_submitted, desk, body, pictures)
            images = await _finished(desk, jobs)
            return {"html_info": await asyncio.to_thread(_told, desk, jobs), "images": images}

        return await answered(answer())

    @routes.get("/upscalers")
    def upscalers() -> Response:
        listed = [each for each in desk.upscalers() if each.status == "ok"]
        return to_json([_shown(NONE, None), *(_shown(each.name, each) for each in listed)])

    @routes.get("/realesrgan-models")
    def realesrgan() -> Response:
        listed = [each for each in desk.upscalers() if each.status == "ok" and each.path and each.path.parent.name == "RealESRGAN"]
        return to_json([{"name": each.name, "path": str(each.path), "scale": each.scale} for each in listed])

    return routes


def _shown(name: str, upscaler: Upscaler | None) -> dict[str, object]:
    path = str(upscaler.path) if upscaler and upscaler.path else None
    scale = upscaler.scale if upscaler and upscaler.scale else 4
    return {"name": name, "model_name": upscaler.stem if path else None, "model_path": path, "model_url": None, "scale": scale}


def _submitted(desk: Desk, body: Body, pictures: list[Mapping[str, object]]) -> list[int]:
    """The jobs for these pictures. Nothing is queued unless all of them can be read, and BadField says so too."""
    common = _common(body)
    requests = []
    for at, picture in enumerate(pictures):
        field = "image" if len(pictures) == 1 else f"imageList[{at}]"
        name = str(picture.get("name") or "")[:MAX_NAME]
        requests.append({**common, "name": name, "picture": taken_in(desk, field, picture.get("data"))})
    return desk.upscale(requests)


def _common(body: Body) -> dict[str, object]:
    """The fields of an upscaling for what the API calls them."""
    weight = number(body, "extras_upscaler_2_visibility", 0)
    second = str(body.get("upscaler_2") or NONE)
    request: dict[str, object] = {
        "upscaler": str(body.get("upscaler_1") or NONE),
        "upscaler_2": second if second != NONE and weight else NO_SECOND,
        "upscaler_2_weight": weight,
    }
    if number(body, "resize_mode", 0) == 1:
        sides = {"width": number(body, "upscaling_resize_w", 512), "height": number(body, "upscaling_resize_h", 512)}
        return {**request, **sides, "crop": body.get("upscaling_crop") is not False}
    return {**request, "factor": number(body, "upscaling_resize", 2)}


async def _finished(desk: Desk, jobs: list[int]) -> list[str]:
    """The pictures of these jobs, once all have ended, as base64."""
    done = [await ended(desk, job) for job in jobs]
    return await asyncio.to_thread(lambda: [_picture(desk, job) for job in done])


def _told(desk: Desk, jobs: list[int]) -> str:
    """The pictures' parameters as HTML."""
    return "".join(f"<p>{escape(entry.infotext)}</p>" for job in jobs for entry in desk.gallery.of_job(job))


def _picture(desk: Desk, job: Job) -> str:
    entries = desk.gallery.of_job(job.id)
    if not entries:
        raise Refused(500, job.reason or "interrupted")
    return base64.b64encode(desk.gallery.png(entries[0].id)).decode()
