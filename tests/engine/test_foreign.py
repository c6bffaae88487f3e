"""Other architectures through spandrel, where that is installed."""

import sys

import pytest
import torch

from modules.engine.stop import CannotDraw
from modules.engine.upscalers import foreign, tiles
from modules.engine.upscalers.rack import Rack
from modules.model_manager.upscalers import scan_upscalers
from tests.engine.test_upscalers import noise
from tests.upscalers import write_upscaler

if not foreign.has_spandrel():
    pytest.skip("spandrel is an extra: pip install --no-deps spandrel==0.4.2 einops", allow_module_level=True)


def test_another_architecture_is_read_by_our_reader_and_built_by_spandrel(tmp_path):
    with foreign.without_torchvision():
        from spandrel.architectures.SPAN import SPAN
    assert "torchvision" not in sys.modules
    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2).eval()
    write_upscaler(tmp_path / "span.pth", {name: values.detach().numpy() for name, values in network.state_dict().items()}, "params")
    write_upscaler(tmp_path / "strange.pth", {"some.weight": torch.zeros(3, 3).numpy()})
    assert [each.status for each in scan_upscalers([tmp_path]) if each.path] == ["ok", "ok"]
    rack = Rack([tmp_path], tmp_path / "store", torch.device("cpu"))
    way, picture = rack.enlarger("span", lambda: None), noise(100, 70)
    assert way.scale == 2
    with torch.inference_mode():
        whole = tiles.picture(network(tiles.tensor(picture)), "RGB")
        assert way.enlarged(picture, (200, 140), lambda: None).tobytes() == whole.tobytes()
    with pytest.raises(CannotDraw, match="strange cannot be used: spandrel does not know it either"):
        rack.enlarger("strange", lambda: None)
