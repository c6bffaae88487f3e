import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.recipe.catalogue import RESIZE_MODES
from modules.recipe.fields import Recipe
from modules.recipe.plan import (
    Box,
    enlargement,
    finished_size,
    fitted,
    padded,
    passes,
    plan,
    scaled_into,
    shaped_like,
    steps_drawn,
)

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@pytest.mark.parametrize(
    ("steps", "strength", "drawn"),
    [(20, 0.75, 15), (20, 1.0, 20), (20, 0.0, 0), (20, 0.01, 1), (100, 0.29, 29), (20, 0.999, 19), (1, 0.5, 1)],
)
def test_strength_says_how_many_steps_are_drawn(steps, strength, drawn):
    assert steps_drawn(Recipe(steps=steps, init_image="a", denoising_strength=strength)) == drawn
    assert steps_drawn(Recipe(steps=steps, denoising_strength=strength)) == steps


@pytest.mark.parametrize(
    ("strength", "steps", "drawn"), [(0.0, 10, 0), (0.3, 33, 10), (0.5, 20, 10), (0.7, 14, 10), (0.999, 10, 10), (1.0, 10, 10)]
)
def test_all_steps_of_a_second_pass_are_drawn_of_a_schedule_that_is_longer(strength, steps, drawn):
    first, second = passes(Recipe(steps=20, hires=True, hires_steps=10, denoising_strength=strength))
    assert (first.recipe.steps, first.drawn) == (20, 20)
    assert (second.recipe.steps, second.drawn) == (steps, drawn)
    assert steps_drawn(Recipe(steps=20, hires=True, denoising_strength=0.5)) == 40
    assert len(passes(Recipe(hires_steps=10))) == 1


@pytest.mark.parametrize(
    ("asked", "size", "part"),
    [
        ({}, (1024, 1280), Box(0, 0, 1024, 1280)),
        ({"hires_scale": 1.3}, (664, 832), Box(0, 0, 664, 832)),  # 665.6 x 832
        ({"hires_width": 768}, (768, 960), Box(0, 0, 768, 960)),
        ({"hires_height": 1000}, (800, 1000), Box(0, 0, 800, 1000)),
        ({"hires_width": 1024, "hires_height": 1024}, (1024, 1280), Box(0, 128, 1024, 1152)),
        ({"hires_width": 512, "hires_height": 1280}, (1024, 1280), Box(256, 0, 768, 1280)),
        ({"hires_width": 256, "hires_height": 320}, (256, 320), Box(0, 0, 256, 320)),
    ],
)
def test_the_second_size(asked, size, part):
    where = enlargement(Recipe(width=512, height=640, hires=True, **asked))
    assert (where.size, where.part) == (size, part)
    assert finished_size(Recipe(width=512, height=640, hires=True, **asked), (1, 1)) == part.size


cells = st.integers(8, 512).map(lambda cell: 8 * cell)


@given(cells, cells, cells | st.just(0), cells | st.just(0), st.floats(1, 8))
def test_the_part_that_is_drawn_again_is_as_large_as_asked_and_lies_in_the_enlarged_picture(width, height, across, down, scale):
    where = enlargement(Recipe(width=width, height=height, hires=True, hires_width=across, hires_height=down, hires_scale=scale))
    part, size = where.part, where.size
    assert 0 <= part.left <= part.right <= size[0] and 0 <= part.top <= part.bottom <= size[1]
    assert not any(side % 8 for side in (*size, *part.size))
    assert (across or part.size[0], down or part.size[1]) == part.size
    assert across and down or part.size == size
    assert part.size[0] == size[0] or part.size[1] == size[1]


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
