import pytest

from modules.recipe.fields import checked
from modules.ui.sizes import PRESETS, preset


@pytest.mark.parametrize("native", [64, 128, 512, 768, 1024])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_its_aspect_at_the_native_size_and_can_be_drawn(name, native):
    width, height = preset(name, native)
    across, down = PRESETS[name]
    assert min(width, height) == native
    assert abs(width / height - across / down) < 8 / native
    assert (checked("width", width), checked("height", height)) == (width, height)
