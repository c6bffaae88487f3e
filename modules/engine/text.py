"""Prompts as the text encoder reads them: chunks, emphasis and clip skip."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel

from modules.engine.stop import CannotDraw
from modules.recipe.prompt import END, Chunk

SMALLEST_MEAN = 0.01  # of the root mean square; below it the mean is rounding, and restoring it would scale by nonsense


def encode(encoder: CLIPTextModel, chunks: Sequence[Chunk], clip_skip: int, padding: int = END) -> Tensor:
    """The conditioning of a prompt: (1, 77 x chunks, width) in the encoder's number format. `padding` fills chunks up behind their end."""
    ids = torch.tensor([chunk.ids for chunk in chunks], device=encoder.device)
    behind_end = (ids == END).cumsum(dim=1) > 1
    hidden = hidden_state(encoder, ids.masked_fill(behind_end, padding), clip_skip)
    weighed = [emphasised(state, torch.tensor(chunk.weights)) for state, chunk in zip(hidden.float(), chunks, strict=True)]
    return torch.cat(weighed)[None].to(hidden.dtype)


def hidden_state(encoder: CLIPTextModel, ids: Tensor, clip_skip: int) -> Tensor:
    """What the encoder makes of token ids (chunks, 77), read `clip_skip` layers from the last (1 is the last): (chunks, 77, width)."""
    layers = len(encoder.encoder.layers)
    if clip_skip > layers:
        raise CannotDraw(f"Clip skip: {clip_skip} is more than the {layers} layers of this checkpoint's text encoder")
    states = encoder(input_ids=ids, output_hidden_states=True).hidden_states  # before the first layer, after it, ... after the last
    return encoder.final_layer_norm(states[-clip_skip])


def emphasised(state: Tensor, weights: Tensor) -> Tensor:
    """Each token's state (77, width) times its weight (77), then all scaled so that the mean stays what it was."""
    if bool((weights == 1).all()):
        return state
    weighed = state * weights.to(state.device)[:, None]
    before, after, size = state.mean(), weighed.mean(), state.square().mean().sqrt()
    if min(before.abs(), after.abs()) < SMALLEST_MEAN * size:
        return weighed
    return weighed * (before / after)
