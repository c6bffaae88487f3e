"""What the tensors of a LoRA file are called, in the spellings of those who write them, and which layer each belongs to.

A layer is called here as kohya's scripts call it: `lora_unet_` or `lora_te_`, then its path in diffusers' UNet2DConditionModel
or transformers' CLIPTextModel with `_` for `.` (https://github.com/kohya-ss/sd-scripts).
"""

import re

from modules.model_manager.architecture import Architecture, UNetShape
from modules.model_manager.layout import text_tensors, unet_tensors

UNET, TEXT = "lora_unet_", "lora_te_text_model_"

_PREFIXES = {
    "lora_unet_": UNET,
    "lora_te_text_model_": TEXT,
    "unet.": UNET,
    "text_encoder.text_model.": TEXT,
    "text_encoder.": TEXT,
    "base_model.model.text_model.": TEXT,
    "base_model.model.": UNET,
}
_ENDINGS = {
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_mid.weight": "mid",
    ".alpha": "alpha",
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
}
OTHER_TYPES = (
    (re.compile(r"\.hada_"), "a LoHa"),
    (re.compile(r"\.lokr_"), "a LoKr"),
    (re.compile(r"\.dora_scale$|\.lora_magnitude_vector"), "a DoRA"),
    (re.compile(r"\.oft_"), "an OFT"),
    (re.compile(r"\.[ab][12]\.weight$"), "a GLoRA"),
    (re.compile(r"\.diff(_b)?$"), "a full difference of weights"),
    (re.compile(r"\.[wb]_norm$"), "a LoRA with norms"),
    (re.compile(r"\.on_input$"), "an IA3"),
    (re.compile(r"\.lora_(B|up)\.bias$"), "a LoRA with biases"),
    (re.compile(r"^bundle_emb\."), "a LoRA with embeddings in it"),
)
OTHER_FAMILIES = (
    (re.compile(r"^(transformer\.|lora_transformer_)|(double|single|joint)_blocks"), "Flux, Stable Diffusion 3 or their kin"),
    (re.compile(r"^(lora_te[12]_|text_encoder_2\.)|transformer_blocks[._][1-9]"), "SDXL"),
)
_TEXT_ATTENTION = re.compile(r"self_attn_to_(q|k|v|out)(_0)?$")  # as diffusers once called the text encoder's layers
_TOP = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


def spelled(name: str) -> tuple[str, str] | None:
    """(layer, what the tensor is of it: down, up, mid or alpha), or None for a name in no known spelling."""
    for ending, part in _ENDINGS.items():
        if not name.endswith(ending):
            continue
        path = name.removesuffix(ending).replace(".processor.", ".")
        path = f"{path}.0" if ending.startswith("_lora") and path.endswith(".to_out") else path
        for prefix, ours in _PREFIXES.items():
            if path.startswith(prefix):
                layer = ours + path.removeprefix(prefix).replace(".", "_")
                return _TEXT_ATTENTION.sub(r"self_attn_\1_proj", layer), part
    return None


def layers_of(architecture: Architecture) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every linear layer and convolution that a LoRA can change: name -> (kohya's name, shape of its weight).

    Layers of the U-Net are there twice, for some LoRAs call them as CompVis's files do: `lora_unet_input_blocks_4_1_…`.
    """
    known = {}
    for layer, shape in _layers(unet_tensors(architecture.unet)).items():
        ours = UNET + _diffusers_path(layer, architecture.unet).replace(".", "_")
        known[ours] = known[UNET + layer.replace(".", "_")] = ours, shape
    for layer, shape in _layers(text_tensors(architecture.text)).items():
        if not layer.startswith("embeddings."):
            ours = TEXT + layer.replace(".", "_")
            known[ours] = ours, shape
    return known


def _layers(tensors: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name.removesuffix(".weight"): shape for name, shape in tensors.items() if name.endswith(".weight") and len(shape) > 1}


def _diffusers_path(layer: str, shape: UNetShape) -> str:
    """`input_blocks.2.0.in_layers.2` -> `down_blocks.0.resnets.1.conv1`."""
    if layer in _TOP:
        return _TOP[layer]
    block, number, rest = layer.split(".", 2)
    if block == "middle_block":
        return f"mid_block.attentions.0.{rest}" if number == "1" else f"mid_block.resnets.{int(number) // 2}.{_RESNET[rest]}"
    side, place = ("down", int(number) - 1) if block == "input_blocks" else ("up", int(number))
    level, index = divmod(place, shape.layers + 1)
    rest = rest.split(".", 1)[1]
    if rest in _RESNET:
        return f"{side}_blocks.{level}.resnets.{index}.{_RESNET[rest]}"
    if rest in ("op", "conv"):
        return f"{side}_blocks.{level}.{side}samplers.0.conv"
    return f"{side}_blocks.{level}.attentions.{index}.{rest}"
