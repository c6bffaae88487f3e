"""The REST API as real clients call it, against the real server, engine and starter."""

import base64
import io
import json
import re
import urllib.error
import urllib.request

import numpy
import pytest
from PIL import Image

from tests import pictures as pictures_of_all_kinds

SILLY_TAVERN = {
    **{"url": "http://x", "auth": "user:secret", "negative_prompt": "", "sampler_name": "DDIM", "scheduler": "normal"},
    **{"cfg_scale": 7, "restore_faces": False, "enable_hr": False, "hr_upscaler": "Latent", "hr_scale": 2, "hr_additional_modules": []},
    **{"denoising_strength": 0.7, "hr_second_pass_steps": 0, "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic"}},
    **{"override_settings_restore_afterwards": True, "clip_skip": 1, "save_images": True, "send_images": True, "do_not_save_grid": False},
}
KOBOLD = {
    **{"sampler_name": "Euler a", "batch_size": 1, "n_iter": 1, "negative_prompt": "", "do_not_save_samples": True, "eta": 0, "s_tmax": 0},
    **{
        "enable_hr": False,
        "s_churn": 0,
        "override_settings": {"sd_hypernetwork": "None", "img2img_fix_steps": False, "ddim_discretize": "x"},
    },
}
WEBUIAPI = {
    **{"sampler_name": "Euler a", "scheduler": "automatic", "sampler_index": "Euler a", "styles": [], "subseed": -1, "eta": 1.0},
    **{"script_name": None, "script_args": [], "alwayson_scripts": {}, "override_settings": {}, "hr_prompt": "", "n_iter": 2},
}


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def pictures(answer):
    return [Image.open(io.BytesIO(base64.b64decode(image))) for image in answer["images"]]


def photo(size=(100, 84), colour=(90, 150, 80)):
    picture = Image.new("RGB", size, colour)
    picture.paste((250, 30, 30), (40, 30, 70, 60))
    return picture


def spot(size=(100, 84)):
    mask = Image.new("L", size)
    mask.paste(255, (36, 26, 74, 64))
    return mask


@pytest.mark.parametrize("client", [SILLY_TAVERN, KOBOLD, WEBUIAPI])
def test_what_clients_send_is_drawn_and_what_they_read_is_there(server, client):
    status, answer = server.ask("/sdapi/v1/txt2img", {**client, "prompt": "a fox 🦊", "steps": 2, "seed": 5, "width": 64, "height": 72})
    assert status == 200, answer
    info = json.loads(answer["info"])
    count = client.get("n_iter", 1)
    assert [picture.size for picture in pictures(answer)] == [(64, 72)] * count and not answer["images"][0].startswith("data:")
    assert (info["seed"], info["all_seeds"], info["width"], info["height"]) == (5, [5, 6][:count], 64, 72)
    assert info["infotexts"][0] == pictures(answer)[0].text["parameters"]
    assert f"Sampler: {client['sampler_name']}, " in info["infotexts"][0]
    assert isinstance(answer["parameters"], dict) and "secret" not in json.dumps(answer["parameters"])


def test_numbers_as_text_suffixed_samplers_no_content_type_and_a_final_slash(server):
    body = {"prompt": "x", "steps": "2", "cfg_scale": "7.0", "seed": "3", "width": 64, "height": 64, "sampler_index": "DPM++ 2M Karras"}
    request = urllib.request.Request(server.url + "/sdapi/v1/txt2img/", json.dumps(body).encode(), {"Authorization": "Basic "})
    request.remove_header("Content-type")
    with urllib.request.urlopen(request, timeout=60) as answer:
        info = json.loads(json.loads(answer.read())["info"])
    assert "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 3" in info["infotexts"][0]


def test_a_picture_is_changed_under_its_mask_only(server):
    body = {"prompt": "grass", "init_images": ["data:image/png;base64," + encoded(photo())], "mask": encoded(spot()), "steps": 8, "seed": 1}
    body |= {"mask_blur": 2, "inpainting_fill": 1, "inpaint_full_res": False, "denoising_strength": 0.9}
    status, answer = server.ask("/sdapi/v1/img2img", body)
    assert status == 200, answer
    (after,) = pictures(answer)
    different = (numpy.asarray(after) != numpy.asarray(photo())).any(axis=2)
    assert not different[:21].any() and not different[69:].any() and different[26:64, 36:74].mean() > 0.5
    only = {**body, "inpaint_full_res": True, "inpaint_full_res_padding": 16, "include_init_images": True}
    answer = server.ask("/sdapi/v1/img2img", only)[1]
    assert pictures(answer)[0].size == (100, 84) and answer["parameters"]["mask"] == body["mask"]
    text = json.loads(answer["info"])["infotexts"][0]
    assert "Inpaint area: Only masked, Masked area padding: 16" in text and "Size: 128x128" in text


def test_hires_fix_as_clients_ask_for_it(server):
    """aiyabot's and webuiapi's ways: numbers as text, half of the steps as a fraction, the upscaler by its label, nulls."""
    body = {"prompt": "a fox", "steps": 3, "seed": 5, "width": 64, "height": 72, "enable_hr": True, "denoising_strength": "0.6"}
    body |= {"hr_scale": "1.5", "hr_upscaler": "Latent", "hr_second_pass_steps": 2.5, "hr_resize_x": 0, "hr_resize_y": 0}
    body |= {"hr_checkpoint_name": None, "hr_sampler_name": "DPM++ SDE Karras", "hr_scheduler": None, "hr_prompt": "a red fox"}
    status, answer = server.ask("/sdapi/v1/txt2img", body)
    assert status == 200, answer
    info = json.loads(answer["info"])
    assert pictures(answer)[0].size == (info["width"], info["height"]) == (96, 104)
    assert info["denoising_strength"] == 0.6 and answer["parameters"]["hr_scale"] == "1.5"
    text = info["infotexts"][0]
    assert "Size: 64x72" in text and "Hires upscale: 1.5, Hires steps: 2, Hires upscaler: Latent, Hires sampler: DPM++ SDE" in text
    assert "Hires schedule type: Karras, Hires prompt: a red fox" in text
    size = {"hr_resize_x": 96, "hr_resize_y": 96, "hr_upscaler": None, "hr_second_pass_steps": 0, "hr_sampler_name": "", "hr_prompt": ""}
    status, answer = server.ask("/sdapi/v1/txt2img", {**body, **size})
    assert status == 200 and pictures(answer)[0].size == (96, 96)
    assert "Hires resize: 96x96, Hires upscaler: Latent, Version" in json.loads(answer["info"])["infotexts"][0]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hr_scale": 0.5}, "Upscale by: 0.5 is outside"),
        ({"hr_upscaler": "Latent (bicubik)"}, "did you mean"),
        ({"hr_resize_x": 9000}, "Resize width to: 9000 is outside"),
        ({"hr_checkpoint_name": "other"}, "hr_checkpoint_name: one checkpoint"),
        ({"hr_second_pass_steps": 1e9}, "Hires steps"),
        ({"hr_prompt": ["a"]}, "Hires prompt: text is needed"),
    ],
)
def test_bad_values_of_hires_fix_are_one_line_unless_it_is_off(server, wrong, says):
    body = {"prompt": "a fox", "steps": 1, "seed": 5, "width": 64, "height": 64, **wrong}
    status, answer = server.ask("/sdapi/v1/txt2img", {**body, "enable_hr": True})
    assert status == 422 and says in answer["detail"] and "\n" not in answer["detail"]
    assert server.ask("/sdapi/v1/txt2img", {**body, "enable_hr": False})[0] == 200


def test_resize_modes_and_strength_0(server):
    body = {"init_images": [encoded(photo())], "steps": 2, "denoising_strength": 0, "resize_mode": 1, "width": 50, "height": 84}
    with pytest.raises(AssertionError):
        assert server.ask("/sdapi/v1/img2img", body)[0] == 200
    status, answer = server.ask("/sdapi/v1/img2img", {**body, "width": 70})
    assert status == 200, answer
    assert (numpy.asarray(pictures(answer)[0]) == numpy.asarray(photo())[:, 15:85]).all()


BAD = [
    ({}, 404, "Init image not found"),
    ({"init_images": []}, 404, "Init image not found"),
    ({"init_images": ["!!!"]}, 422, "Invalid encoded image"),
    ({"init_images": ["http://127.0.0.1:1/x.png"]}, 422, "addresses are not fetched"),
    ({"init_images": ["file:///etc/passwd"]}, 422, "addresses are not fetched"),
    ({"init_images": [base64.b64encode(b"<svg/>").decode()]}, 422, "SVG"),
    ({"init_images": [5]}, 422, "base64"),
    ({"init_images": [encoded(photo())] * 2}, 422, "one picture"),
    ({"init_images": [encoded(photo())], "mask": encoded(Image.new("L", (100, 84)))}, 422, "it is empty"),
    ({"init_images": [encoded(photo())], "mask": encoded(Image.new("L", (100, 20), 255))}, 422, "another shape"),
    ({"init_images": [encoded(photo())], "resize_mode": 9}, 422, "resize_mode"),
    ({"init_images": [encoded(photo())], "denoising_strength": "much"}, 422, "Denoising strength"),
    ({"init_images": [encoded(Image.new("RGBA", (64, 64)))]}, 422, "transparent everywhere"),
    ({"init_images": [encoded(photo())], "sampler_name": "Eular"}, 422, "did you mean 'Euler'"),
]


@pytest.mark.parametrize(("body", "status", "says"), BAD)
def test_bad_input_is_one_line_and_leaves_no_job(server, body, status, says):
    before = server.state()["last"], server.state()["queued_count"]
    answered, answer = server.ask("/sdapi/v1/img2img", body)
    assert answered == status and says in answer["detail"] and "\n" not in answer["detail"]
    assert (server.state()["last"], server.state()["queued_count"]) == before


@pytest.mark.parametrize("name", sorted(set(pictures_of_all_kinds.BAD) - {"too heavy"}))
def test_a_file_that_is_no_plain_picture_is_refused_as_a_picture_and_as_a_mask(server, name):
    data, says = pictures_of_all_kinds.BAD[name]
    bad = base64.b64encode(data).decode()
    masked = [{"init_images": [encoded(photo())], "mask": bad}] if bad else []  # no mask is no fault
    for body in ({"init_images": [bad]}, *masked):
        status, answer = server.ask("/sdapi/v1/img2img", body)
        assert status == 422 and re.search(says, answer["detail"]) and "\n" not in answer["detail"]


@pytest.mark.parametrize("name", pictures_of_all_kinds.GOOD)
def test_every_format_comes_back_in_its_colours(server, name):
    data, mode, off = pictures_of_all_kinds.GOOD[name]
    body = {"init_images": [base64.b64encode(data).decode()], "denoising_strength": 0, "steps": 1}
    status, answer = server.ask("/sdapi/v1/img2img", body)
    assert status == 200, answer
    (after,) = pictures(answer)
    assert after.mode == mode and abs(numpy.asarray(after.convert("RGB")).astype(int) - pictures_of_all_kinds.COLOURS).max() <= off


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":' * 100_000, b"\xff\xfe", b'{"steps": NaN}', b'{"prompt": "\\ud800"}'])
def test_bodies_that_are_no_request_are_refused_as_json(server, body):
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(server.url + "/sdapi/v1/txt2img", body), timeout=10)
    assert refused.value.code == 422 and json.loads(refused.value.read())["detail"]


def test_unknown_paths_are_json_too_and_other_sites_are_refused(server):
    for path in ("nothing", "options/x", "controlnet/version"):
        assert server.ask(f"/sdapi/v1/{path}") == (404, {"detail": "Not Found"})
    for kind in ("text/plain", "application/json"):
        assert server.ask("/sdapi/v1/txt2img", {"prompt": "x"}, **{"Content-Type": kind, "Origin": "http://evil.example"})[0] == 403


def raw(server, path, data):
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/octet-stream"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_pictures_come_in_as_files_and_from_the_gallery(server):
    file = io.BytesIO()
    photo().save(file, "BMP")
    status, taken = raw(server, "/api/v1/incoming", file.getvalue())
    assert status == 201 and (taken["width"], taken["height"]) == (100, 84)
    shown = Image.open(io.BytesIO(server.ask(taken["url"])[1]))
    assert shown.format == "PNG" and shown.tobytes() == photo().tobytes()
    drawn = server.draw(steps=1)
    server.wait_for_job(drawn)
    (picture,) = server.pictures(drawn)
    assert server.ask(f"/api/v1/pictures/{picture['id']}/incoming", {})[1]["width"] == picture["width"]


def test_what_is_no_picture_does_not_come_in(server):
    assert raw(server, "/api/v1/incoming", b"<svg/>")[0] == 422 and raw(server, "/api/v1/incoming", b"")[0] == 422
    assert server.ask("/api/v1/incoming/" + "0" * 64)[0] == 404 and server.ask("/api/v1/incoming/..%2f..%2fetc%2fpasswd")[0] in (404, 422)
