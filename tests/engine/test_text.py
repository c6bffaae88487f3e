import pytest
import torch
from instant_clip_tokenizer import Tokenizer

from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.studio import Studio
from modules.engine.text import emphasised, encode, hidden_state
from modules.recipe.prompt import Chunk, chunk, parse

ENCODE = Tokenizer().encode


def chunks(prompt: str) -> list[Chunk]:
    return chunk(parse(prompt), ENCODE)


@pytest.fixture
def family(studio: Studio) -> StableDiffusion1:
    return studio.warm("eps.safetensors", "None", lambda fraction: None).family


def test_emphasis_weighs_tokens_and_restores_the_mean() -> None:
    state = torch.randn(77, 8, generator=torch.Generator().manual_seed(0)) + 1
    weights = torch.ones(77)
    weights[2] = 1.5
    weighed = emphasised(state, weights)
    assert float(weighed.mean()) == pytest.approx(float(state.mean()), rel=1e-5)
    ratio = weighed / state
    torch.testing.assert_close(ratio[2] / ratio[3], torch.full((8,), 1.5))
    assert torch.equal(emphasised(state, torch.ones(77)), state)


def test_a_mean_of_nearly_nothing_is_not_restored() -> None:
    """An encoder whose final layer norm has no bias has mean 0 up to rounding; the quotient of two roundings is nonsense."""
    state = torch.randn(77, 8, generator=torch.Generator().manual_seed(0))
    state -= state.mean(dim=1, keepdim=True)
    weights = torch.full((77,), 1.0)
    weights[1:4] = 0.5
    torch.testing.assert_close(emphasised(state, weights), state * weights[:, None])


@pytest.mark.parametrize("skip", [1, 2])
def test_clip_skip_is_an_earlier_layer_with_the_final_norm(skip: int, family: StableDiffusion1) -> None:
    """By hand: the encoder's layers applied one after the other under a causal mask, the last `skip - 1` left out."""
    ids = torch.tensor([chunks("a red fox")[0].ids])
    with torch.inference_mode():
        state = family.text.embeddings(ids)
        mask = torch.full((77, 77), float("-inf")).triu(1)[None, None]
        for layer in family.text.encoder.layers[: len(family.text.encoder.layers) + 1 - skip]:
            state = layer(state, attention_mask=mask)
        torch.testing.assert_close(hidden_state(family.text, ids, skip), family.text.final_layer_norm(state))


def test_chunks_are_encoded_apart_and_joined(family: StableDiffusion1) -> None:
    with torch.inference_mode():
        both = encode(family.text, chunks("a fox BREAK the snow"), 1)
        apart = [encode(family.text, chunks(prompt), 1) for prompt in ("a fox", "the snow")]
    assert both.shape == (1, 154, 64)
    torch.testing.assert_close(both, torch.cat(apart, dim=1))


def test_emphasis_changes_the_conditioning(family: StableDiffusion1) -> None:
    with torch.inference_mode():
        plain, strong = (encode(family.text, chunks(prompt), 1) for prompt in ("a red fox", "a (red:1.4) fox"))
    assert not torch.equal(plain, strong)
    assert torch.isfinite(strong).all()
