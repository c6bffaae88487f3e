import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from modules.engine import strips
from modules.engine.strips import in_strips
from modules.engine.weights import checking


@pytest.mark.parametrize("rows", [1, 5, 16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_strips_give_the_same_result_with_checks_between(rows: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)).to(memory_format=layout)
    x = torch.randn(2, 3, 40, 24)
    calls: list[int] = []
    with torch.inference_mode():
        whole = network(x)
        in_strips(network)
        monkeypatch.setattr(strips, "LARGEST", rows * 2 * (3 * 8 * 9) * 2 * 24)
        with checking(lambda: calls.append(1)):
            torch.testing.assert_close(network(x), whole)
    assert len(calls) == 3 + -(-40 // rows)  # the two layers, the network itself, and the strips


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("about", [{"cross_attention_dim": 24}, {"norm_num_groups": 4, "residual_connection": True, "bias": True}])
def test_attention_in_strips_gives_what_diffusers_gives(rows: int, about: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Attention(16, heads=2, dim_head=8, rescale_output_factor=2.0, **about)
    of_picture = "norm_num_groups" in about
    x = torch.randn(2, 16, 5, 8) if of_picture else torch.randn(2, 40, 16)
    context = None if of_picture else torch.randn(2, 30, 24)
    calls: list[int] = []
    with torch.inference_mode():
        whole = layer(x, context)
        in_strips(layer)
        monkeypatch.setattr(strips, "LARGEST_ATTENTION", rows * 4 * 2 * (40 if of_picture else 30) * 16)
        with checking(lambda: calls.append(1)):
            torch.testing.assert_close(layer(x, context), whole)
    assert len(calls) >= -(-40 // rows)


def test_what_cannot_be_striped_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 4, 3))
    in_strips(network)
    assert all(type(layer) is nn.Conv2d for layer in network)
