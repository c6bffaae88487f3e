"""Large convolutions and attentions in strips: no single operation then keeps a Cancel waiting for seconds, and the result is the same."""

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

LARGEST = 5e10  # operations at once: a tenth of a second on two fast cores, half a second on two slow ones
LARGEST_ATTENTION = 1.5e10  # the same for attention, which reaches a fraction of a convolution's speed


class StripedConv2d(nn.Conv2d):
    """A 3x3 convolution (stride 1, padding 1) that calls itself, with all hooks, for each strip of a large input."""

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        rows = max(1, int(LARGEST / (2 * self.weight.numel() * x.shape[0] * x.shape[3])))
        if height <= rows + 2:
            return super().forward(x)
        strips = []
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first = max(top - 1, 0)  # a row more on either side, for the kernel reaches over
            strips.append(self(x[:, :, first : bottom + 1])[:, :, top - first : bottom - first])
        return torch.cat(strips, dim=2)


class Attend(nn.Module):
    """Scaled dot-product attention that calls itself, with all hooks, for each strip of many queries. (B, heads, N, D) each."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = max(1, int(LARGEST_ATTENTION / (4 * key.numel())))
        if query.shape[2] <= rows:
            return F.scaled_dot_product_attention(query, key, value)
        return torch.cat([self(strip, key, value) for strip in query.split(rows, dim=2)], dim=2)


class StripedAttention:
    """What diffusers calls an attention processor: the way through an Attention layer of the U-Net or the autoencoder."""

    def __init__(self) -> None:
        self._attend = Attend()

    def __call__(self, layer: Attention, x: Tensor, encoder_hidden_states: Tensor | None = None, temb: None = None, **_: object) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x  # (B, N, C)
        if layer.group_norm is not None:
            tokens = layer.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
        context = tokens if encoder_hidden_states is None else encoder_hidden_states
        projected = (layer.to_q(tokens), layer.to_k(context), layer.to_v(context))
        heads = [part.unflatten(2, (layer.heads, -1)).transpose(1, 2) for part in projected]  # (B, heads, N, D)
        tokens = layer.to_out[0](self._attend(*heads).transpose(1, 2).flatten(2))
        out = tokens.transpose(1, 2).reshape(x.shape) if x.ndim == 4 else tokens
        return (out + x if layer.residual_connection else out) / layer.rescale_output_factor


def in_strips(network: nn.Module) -> None:
    """Makes every convolution that can be striped, and every attention, a striped one."""
    for module in network.modules():
        if type(module) is nn.Conv2d and (module.kernel_size, module.stride, module.padding) == ((3, 3), (1, 1), (1, 1)):
            module.__class__ = StripedConv2d
        elif isinstance(module, Attention):
            module.set_processor(StripedAttention())
