"""Super-resolution by the REST API and our own, against the real server and engine."""

import base64
import io
import json
import urllib.request

import pytest
from PIL import Image


def encoded(image, form="PNG"):
    file = io.BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def taken_in(server, image):
    file = io.BytesIO()
    image.save(file, "PNG")
    request = urllib.request.Request(f"{server.url}/api/v1/incoming", file.getvalue(), {"Content-Type": "application/octet-stream"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["id"]


def photo(size=(40, 30)):
    picture = Image.new("RGB", size, (90, 150, 80))
    picture.paste((250, 30, 30), (10, 8, 24, 20))
    return picture


@pytest.fixture(autouse=True)
def ready(server):
    """Requests wait for their pictures; the engine may still be starting."""
    server.wait(lambda state: state["engine"]["state"] == "ready")


def test_the_list_begins_with_none_and_names_what_is_there(server):
    status, listed = server.ask("/sdapi/v1/upscalers")
    names = [each["name"] for each in listed]
    assert status == 200 and names[:2] == ["None", "Lanczos"] and {"realesr-animevideov3", "R-ESRGAN 4x+"} <= set(names)
    assert {"name", "model_name", "model_path", "model_url", "scale"} == set(listed[0])
    assert listed[names.index("R-ESRGAN 4x+")]["model_name"] == "RealESRGAN_x4plus"
    assert "R-ESRGAN 4x+ Anime6B" in [each["name"] for each in server.ask("/sdapi/v1/realesrgan-models")[1]]


@pytest.mark.parametrize(
    ("body", "size", "says"),
    [
        (
            {"upscaler_1": "realesr-animevideov3", "upscaling_resize": "2"},
            (80, 60),
            "Postprocess upscale by: 2, Postprocess upscaler: realesr-",
        ),
        (
            {"upscaler_1": "Lanczos", "resize_mode": 1, "upscaling_resize_w": 64, "upscaling_resize_h": 64},
            (64, 64),
            "Postprocess crop to: 64x64",
        ),
        ({"upscaler_1": "None"}, (80, 60), "Postprocess upscaler: Lanczos"),
        (
            {"upscaler_1": "Nearest", "upscaler_2": "realesr-animevideov3", "extras_upscaler_2_visibility": 0.5, "gfpgan_visibility": 0},
            (80, 60),
            "Postprocess upscaler 2 visibility: 0.5",
        ),
    ],
)
def test_a_picture_comes_back_larger_and_is_in_the_gallery(server, body, size, says):
    status, answer = server.ask("/sdapi/v1/extra-single-image/", {"image": f"data:image/png;base64,{encoded(photo())}", **body})
    assert status == 200, answer
    assert decoded(answer["image"]).size == size and says in answer["html_info"] and says in decoded(answer["image"]).text["parameters"]
    newest = server.ask("/api/v1/pictures?limit=1")[1][0]
    assert (newest["width"], newest["height"]) == size and newest["file"].startswith("extras-images/")


def test_a_batch_comes_back_in_its_order(server):
    pictures = [{"data": encoded(photo((8 + at, 9)), "JPEG" if at else "PNG"), "name": f"{at}.png"} for at in range(3)]
    status, answer = server.ask("/sdapi/v1/extra-batch-images", {"imageList": pictures, "upscaler_1": "Bicubic", "upscaling_resize": 3})
    assert status == 200 and [decoded(image).width for image in answer["images"]] == [24, 27, 30]


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("extra-single-image", {"image": encoded(photo()), "upscaler_1": "ESRGAN_4x"}, "there is no upscaler ESRGAN_4x"),
        ("extra-single-image", {"image": encoded(photo()), "upscaling_resize": "much"}, "upscaling_resize: much is not a number"),
        ("extra-single-image", {"image": encoded(photo()), "upscaling_resize": 10**400}, "upscaling_resize: 1000"),
        ("extra-single-image", {"image": encoded(photo()), "upscaling_resize": [2]}, "upscaling_resize: [2] is not a number"),
        ("extra-single-image", {"image": encoded(photo()), "resize_mode": 1, "upscaling_resize_w": 0, "upscaling_resize_h": 0}, "how wide"),
        ("extra-single-image", {"image": "ä"}, "image: Invalid encoded image"),
        ("extra-single-image", {"image": encoded(photo()), "upscaling_resize": 0}, "outside"),
        ("extra-single-image", {"image": encoded(photo()), "extras_upscaler_2_visibility": 2, "upscaler_2": "Lanczos"}, "outside"),
        ("extra-single-image", {"image": "aGFsbG8="}, "image: not a picture"),
        ("extra-single-image", {}, "image: pictures come as base64"),
        (
            "extra-single-image",
            {"image": encoded(photo()), "resize_mode": 1, "upscaling_resize_w": 65536},
            "a file holds 333 million pixels",
        ),
        ("extra-batch-images", {"imageList": []}, "a list of pictures"),
        ("extra-batch-images", {"imageList": [{"data": encoded(photo())}, {"data": "eA=="}]}, "imageList[1]: not a picture"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_queued(server, path, body, says):
    before = server.ask("/api/v1/pictures?limit=1")[1]
    status, answer = server.ask(f"/sdapi/v1/{path}", body)
    assert status == 422 and says in answer["detail"], answer
    assert server.ask("/api/v1/pictures?limit=1")[1] == before and server.state()["queued_count"] == 0


def test_an_upscaling_is_a_job_of_the_queue_like_any_other(server):
    id = taken_in(server, photo((300, 200)))
    first = server.draw(width=64, height=64, steps=20)
    status, answer = server.ask("/api/v1/upscale", {"picture": id, "name": "a photo.png", "factor": 2})
    assert status == 201
    state = server.state()
    assert any(job["prompt"] == "a photo.png, 2×" for job in state["queued"]) or state["running"]["job"] == answer["job"]
    ended = server.wait_for_job(answer["job"])
    assert (ended["state"], ended["prompt"]) == ("done", "a photo.png, 2×") and server.pictures(first)
    assert [(each["width"], each["height"]) for each in server.pictures(answer["job"])] == [(600, 400)]
    status, refused = server.ask("/api/v1/upscale", {"picture": id, "factor": 17})
    assert (status, refused["field"]) == (422, "factor")
    assert any(each["name"] == "realesr-animevideov3" for each in server.ask("/api/v1/upscalers")[1])
