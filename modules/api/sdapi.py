"""The REST API that the AUTOMATIC1111 web UI made the convention, /sdapi/v1: drawing and changing pictures.

A request becomes a job like any other, so its pictures are saved like any others, and the answer waits for its end.
"""

import asyncio
import base64
import json
import math
from collections.abc import Awaitable, Mapping

from fastapi import APIRouter, Request
from fastapi.responses import Response

from modules.gallery.pictures import Entry
from modules.incoming.reader import MAX_FILE, BadPicture
from modules.jobs.desk import Desk
from modules.jobs.queue import Job, QueueFull
from modules.recipe.catalogue import INPAINT_AREAS, MASK_EDGES, MASK_MODES, MASKED_CONTENT, RESIZE_MODES, sampler_and_schedule
from modules.recipe.fields import BadField, Recipe
from modules.version import VERSION

LOOK_EVERY = 0.05  # seconds between two looks at a job that is being waited for
SAME_CHECKPOINT = "Use same checkpoint"
NO_PICTURE = "Init image not found"

Body = Mapping[str, object]

SAME = {  # what the API calls a field -> what the recipe calls it
    **{name: name for name in ("prompt", "negative_prompt", "seed", "steps", "cfg_scale", "width", "height", "batch_size")},
    **{name: name for name in ("subseed", "subseed_strength", "seed_resize_from_w", "seed_resize_from_h")},
    **{name: name for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")},
    "n_iter": "batch_count",
}
CHANGING = {"denoising_strength": "denoising_strength", "mask_blur": "mask_blur", "inpaint_full_res_padding": "masked_padding"}
HIRES = {
    **{"enable_hr": "hires", "hr_scale": "hires_scale", "hr_resize_x": "hires_width", "hr_resize_y": "hires_height"},
    **{"hr_upscaler": "hires_upscaler", "hr_second_pass_steps": "hires_steps", "denoising_strength": "denoising_strength"},
    **{"hr_prompt": "hires_prompt", "hr_negative_prompt": "hires_negative_prompt"},
}
NUMBERED = {  # what is a number in the API -> the recipe's field and its names in that order
    "resize_mode": ("resize_mode", list(RESIZE_MODES)),
    "inpainting_fill": ("masked_content", list(MASKED_CONTENT)),
    "inpaint_full_res": ("inpaint_area", list(INPAINT_AREAS)),
    "inpainting_mask_invert": ("mask_mode", list(MASK_MODES)),
}
ECHOED = (
    *(*SAME, *CHANGING, *HIRES, *NUMBERED, "sampler_name", "sampler_index", "scheduler"),
    *("hr_sampler_name", "hr_scheduler", "send_images", "save_images"),
)
OVERRIDES = {"sd_model_checkpoint": "checkpoint", "sd_vae": "vae", "CLIP_stop_at_last_layers": "clip_skip"}


class Refused(Exception):
    """A request that is answered with this status and line."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def router(desk: Desk) -> APIRouter:
    """The routes, each with and without a slash at its end, for clients write both."""
    routes = APIRouter(prefix="/sdapi/v1")

    @routes.post("/txt2img")
    @routes.post("/txt2img/", include_in_schema=False)
    async def txt2img(request: Request) -> Response:
        return await answered(_answer(desk, await request.body(), changing=False))

    @routes.post("/img2img")
    @routes.post("/img2img/", include_in_schema=False)
    async def img2img(request: Request) -> Response:
        return await answered(_answer(desk, await request.body(), changing=True))

    @routes.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    def unknown(path: str) -> Response:
        return to_json({"detail": "Not Found"}, 404)

    return routes


async def _answer(desk: Desk, raw: bytes, changing: bool) -> dict[str, object]:
    body = parsed(raw)
    job = await ended(desk, await asyncio.to_thread(lambda: desk.submit(_request(desk, body, changing))))
    if job.state == "failed":
        raise Refused(500, job.reason)
    return await asyncio.to_thread(_result, desk, job, body)


async def answered(answer: Awaitable[dict[str, object]]) -> Response:
    """The answer as JSON, or why there is none."""
    try:
        return to_json(await answer)
    except Refused as refusal:
        return _refusal(refusal.status, str(refusal))
    except BadField as error:
        return _refusal(503 if isinstance(error, QueueFull) else 422, str(error))


def _refusal(status: int, detail: str) -> Response:
    return to_json({"error": "BadRequest" if status < 500 else "Failed", "detail": detail, "body": "", "errors": detail}, status)


def parsed(raw: bytes) -> dict[str, object]:
    """The body as what it holds; whether it is called JSON does not matter, for clients do not say."""
    try:
        body = json.loads(raw, parse_constant=str)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(422, "the body must be a JSON object")
    return body


def _request(desk: Desk, body: Body, changing: bool) -> dict[str, object]:
    """The recipe's fields for an API request. What it does not know is left out, as clients expect."""
    request = {ours: body.get(theirs) for theirs, ours in SAME.items()}
    request["eta_ddim"] = body.get("eta")  # one name for both there
    request["sampler"], request["schedule"] = _sampler(body.get("sampler_name") or body.get("sampler_index"), body.get("scheduler"))
    overrides = body.get("override_settings") if isinstance(body.get("override_settings"), dict) else {}
    request |= {ours: overrides[theirs] for theirs, ours in OVERRIDES.items() if overrides.get(theirs)}
    return request | (_changes(desk, body) if changing else _second_pass(body))


def _sampler(named: object, scheduler: object) -> tuple[str | None, str | None]:
    """Sampler and schedule, None where nothing is said; a name such as "DPM++ 2M Karras" says both."""
    name, schedule = sampler_and_schedule(str(named or ""), str(scheduler or ""))
    return name or None, schedule or None


def _second_pass(body: Body) -> dict[str, object]:
    """What hires fix adds. Clients send its fields also where it is off, with whatever they like in them."""
    if not body.get("enable_hr"):
        return {}
    if body.get("hr_checkpoint_name") not in (None, "", SAME_CHECKPOINT):
        raise Refused(422, "hr_checkpoint_name: one checkpoint draws both times; leave it out")
    request = {ours: body.get(theirs) for theirs, ours in HIRES.items()}
    request["hires_sampler"], request["hires_schedule"] = _sampler(body.get("hr_sampler_name"), body.get("hr_scheduler"))
    request["hires_upscaler"] = request["hires_upscaler"] or None
    if isinstance(request["hires_steps"], float) and math.isfinite(request["hires_steps"]):
        request["hires_steps"] = int(request["hires_steps"])  # half of the steps, as clients reckon
    return request


def _changes(desk: Desk, body: Body) -> dict[str, object]:
    """What img2img adds: the picture, the mask, and what is done with them."""
    images = body.get("init_images") or []
    if not isinstance(images, list) or not images:
        raise Refused(404, NO_PICTURE)
    if len(images) > 1:
        raise Refused(422, "init_images: one picture a request, please")
    request = {ours: body.get(theirs) for theirs, ours in CHANGING.items()}
    if request["mask_blur"] is None:
        blurs = [value for value in (body.get("mask_blur_x"), body.get("mask_blur_y")) if isinstance(value, int)]
        request["mask_blur"] = max(blurs, default=None)
    masked = bool(body.get("mask"))
    defaults = {"inpaint_full_res": True, "inpainting_fill": 0} if masked else {}
    for theirs, (ours, names) in NUMBERED.items():
        request[ours] = _name_of(theirs, body.get(theirs) if body.get(theirs) is not None else defaults.get(theirs), names)
    if request["masked_padding"] is None:
        request["masked_padding"] = 0
    if body.get("mask_round") is False:
        request["mask_edge"] = list(MASK_EDGES)[1]
    request["init_image"] = taken_in(desk, "init_images", images[0])
    request["mask"] = taken_in(desk, "mask", body["mask"]) if masked else ""
    return request


def number(body: Body, field: str, default: float) -> float:
    """A number, which many clients send as text; the default where it is left out."""
    value = body.get(field)
    try:
        return default if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, f"{field}: {str(value)[:40]} is not a number") from None


def _name_of(field: str, number: object, names: list[str]) -> str | None:
    if number is None:
        return None
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise Refused(422, f"{field}: {str(number)[:40]} is not one of 0 to {len(names) - 1}")
    return names[number]


def taken_in(desk: Desk, field: str, text: object) -> str:
    """The id of a picture that came as base64, with or without what makes it a data: URL. Addresses are not fetched."""
    if not isinstance(text, str) or text[:8].lower().startswith(("http:", "https:", "file:", "ftp:")):
        raise Refused(422, f"{field}: pictures come as base64; addresses are not fetched")
    if len(text) > MAX_FILE * 4 // 3 + 100:
        raise Refused(413, f"{field}: more than {MAX_FILE >> 20} MB")
    try:
        return desk.take_in(base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True))
    except BadPicture as error:
        raise Refused(422, f"{field}: {error}") from None
    except ValueError:  # of bad base64, and of what is no ASCII
        raise Refused(422, f"{field}: Invalid encoded image") from None


async def ended(desk: Desk, job: int) -> Job:
    """The job, once it has ended. It is looked up whenever something changed."""
    version = -1
    while True:
        if desk.version != version:
            version = desk.version
            found = await asyncio.to_thread(desk.job, job)
            if found.state not in ("queued", "running"):
                return found
        await asyncio.sleep(LOOK_EVERY)


def _result(desk: Desk, job: Job, body: Body) -> dict[str, object]:
    """The pictures of a job that ended, also of one that was interrupted."""
    entries = desk.gallery.of_job(job.id)
    images = [base64.b64encode(desk.gallery.png(entry.id)).decode() for entry in entries] if body.get("send_images") is not False else []
    shown = (*ECHOED, "init_images", "mask") if body.get("include_init_images") else ECHOED  # not everything: some clients send passwords
    parameters = {name: body[name] for name in shown if name in body}
    return {"images": images, "parameters": parameters, "info": json.dumps(_info(job.recipe, entries))}


def to_json(answer: object, status: int = 200) -> Response:
    return Response(json.dumps(answer), status, media_type="application/json")


def _info(recipe: Recipe, entries: list[Entry]) -> dict[str, object]:
    seeds = [entry.seed for entry in entries]
    first = entries[0] if entries else None
    count = len(entries)
    return {
        "prompt": recipe.prompt,
        "all_prompts": [recipe.prompt] * count,
        "negative_prompt": recipe.negative_prompt,
        "all_negative_prompts": [recipe.negative_prompt] * count,
        "seed": first.seed if first else recipe.seed,
        "all_seeds": seeds,
        "subseed": recipe.subseed,
        "all_subseeds": recipe.subseeds[:count],
        "subseed_strength": recipe.subseed_strength,
        "width": first.width if first else recipe.width,
        "height": first.height if first else recipe.height,
        "sampler_name": recipe.sampler,
        "cfg_scale": recipe.cfg_scale,
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "sd_model_name": recipe.checkpoint,
        "sd_model_hash": recipe.model_hash,
        "denoising_strength": recipe.denoising_strength if recipe.init_image or recipe.hires else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [entry.infotext for entry in entries],
        "clip_skip": recipe.clip_skip,
        "is_using_inpainting_conditioning": recipe.is_masked,
        "version": f"Easel {VERSION}",
    }
