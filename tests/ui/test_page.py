from pathlib import Path

from modules.model_manager.library import Checkpoint
from modules.ui.page import own_values
from modules.ui.workspace import folded_title


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
