from pathlib import Path

from modules.model_manager.library import Checkpoint
from modules.ui import hires
from modules.ui.page import own_values
from modules.ui.workspace import folded_title, request_of


def checkpoint(name, native_size, **defaults):
    return Checkpoint(name, Path(name), "ok", "sd1", "", None, 1, native_size, defaults)


KNOWN = [checkpoint("starter.safetensors", 128, cfg_scale=3.0, steps=25), checkpoint("v1-5.ckpt", 512)]


def test_a_checkpoint_brings_its_native_size_and_what_it_recommends():
    assert own_values(KNOWN, "starter.safetensors") == {"width": 128, "height": 128, "cfg_scale": 3.0, "steps": 25}
    assert own_values(KNOWN, "v1-5.ckpt") == {"width": 512, "height": 512, "cfg_scale": 7.0}
    assert own_values(KNOWN, None) == {"width": 512, "height": 512, "cfg_scale": 7.0}


def test_the_fold_names_what_differs():
    assert folded_title({"clip_skip": 1, "vae": "Automatic"}) == "More"
    assert folded_title({"clip_skip": 2, "vae": "mse.safetensors"}) == "More · clip skip 2, VAE mse.safetensors"
    assert folded_title({"clip_skip": None, "vae": None}) == "More"


def test_the_fold_names_rarer_options_by_what_they_are_not_how_they_are_written():
    assert folded_title({"subseed": "-1", "eta": 1, "s_churn": "0", "sgm_noise_multiplier": False, "randn_source": "CPU"}) == "More"
    differing = {"subseed": "9", "subseed_strength": 0.2, "sgm_noise_multiplier": True, "randn_source": "NV"}
    assert folded_title(differing) == "More · variation seed 9, variation strength 0.2, noise source NV, SGM noise multiplier"
    assert folded_title({"eta": "much"}) == "More · eta much"


def test_the_fold_of_hires_fix_says_how_large_and_in_which_way():
    usual = {"hires": True, "hires_scale": 2, "hires_width": 0, "hires_height": 0, "hires_upscaler": "Latent"}
    assert hires.title({**usual, "hires": False}) == hires.title({}) == "Hires fix"
    assert hires.title(usual) == "Hires fix · 2×, Latent"
    assert hires.title({**usual, "hires_width": 1024, "hires_upscaler": "Lanczos"}) == "Hires fix · 1024 wide, Lanczos"
    assert hires.title({**usual, "hires_width": 1024, "hires_height": 768}) == "Hires fix · 1024 × 768, Latent"


def test_hires_fix_is_asked_for_in_text_to_image_alone_with_a_strength_of_its_own():
    typed = {"hires": True, "hires_strength": 0.4, "denoising_strength": 0.9, "init_image": "a", "mask": "b"}
    asked = {tab: request_of({**typed, "tab": tab}) for tab in ("text-to-image", "image-to-image", "inpainting")}
    assert {tab: (request["hires"], request["denoising_strength"]) for tab, request in asked.items()} == {
        "text-to-image": (True, 0.4),
        "image-to-image": (False, 0.9),
        "inpainting": (False, 0.9),
    }
    assert not any("hires_strength" in request for request in asked.values())
