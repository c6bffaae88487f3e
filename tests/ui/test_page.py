from pathlib import Path

from modules.model_manager.library import Checkpoint
from modules.ui.page import own_values
from modules.ui.text_to_image import folded_title


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
