import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.recipe.catalogue import RESIZE_MODES
from modules.recipe.fields import Recipe
from modules.recipe.plan import Box, finished_size, fitted, padded, plan, scaled_into, shaped_like, steps_drawn

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.mark.parametrize(
    ("steps", "strength", "drawn"),
    [(20, 0.75, 15), (20, 1.0, 20), (20, 0.0, 0), (20, 0.01, 1), (100, 0.29, 29), (20, 0.999, 19), (1, 0.5, 1)],
)
def test_strength_says_how_many_steps_are_drawn(steps, strength, drawn):
    assert steps_drawn(Recipe(steps=steps, init_image="a", denoising_strength=strength)) == drawn
    assert steps_drawn(Recipe(steps=steps, denoising_strength=strength)) == steps


def test_only_the_masked_part_is_drawn_at_the_recipes_size():
    recipe = Recipe(init_image="a", mask="b", inpaint_area="Only masked", width=512, height=512, masked_padding=32)
    assert finished_size(recipe, (4000, 3000)) == (4000, 3000)
    where = plan(recipe, (4000, 3000), Box(1000, 1000, 1064, 1064))
    assert (where.part, where.drawn) == (Box(968, 968, 1096, 1096), (512, 512))
    corner = plan(recipe, (4000, 3000), Box(0, 2990, 100, 3000))
    assert (corner.part, corner.drawn) == (Box(0, 2868, 132, 3000), (512, 512))
    whole = Recipe(init_image="a", mask="b", width=300, height=200)
    assert plan(whole, (300, 200), Box(1, 2, 3, 4)).part == Box(0, 0, 300, 200)


@given(sizes, sizes, st.data())
def test_the_part_that_is_drawn_holds_the_mask_and_lies_in_the_picture(shape, within, data):
    left, top = data.draw(st.integers(0, within[0] - 1)), data.draw(st.integers(0, within[1] - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, within[0])), data.draw(st.integers(top + 1, within[1])))
    part = shaped_like(shape, box, within)
    assert 0 <= part.left <= box.left < box.right <= part.right <= within[0]
    assert 0 <= part.top <= box.top < box.bottom <= part.bottom <= within[1]
    drawn = scaled_into(part.size, shape)
    assert 1 <= drawn[0] <= shape[0] and 1 <= drawn[1] <= shape[1] and (drawn[0] == shape[0] or drawn[1] == shape[1])


@given(st.sampled_from(sorted(RESIZE_MODES)), sizes, sizes)
def test_what_is_shown_of_a_picture_lies_in_it_and_fills_the_target_or_is_whole(mode, source, target):
    shown, place = fitted(mode, source, target)
    for box, size in ((shown, source), (place, target)):
        assert 0 <= box.left < box.right <= size[0] and 0 <= box.top < box.bottom <= size[1]
    assert shown.size == source or place.size == target


@pytest.mark.parametrize(("size", "wanted"), [((64, 64), (64, 64)), ((65, 57), (72, 64)), ((1, 1), (8, 8))])
def test_sizes_are_padded_to_whole_cells(size, wanted):
    assert padded(size, 8) == wanted
