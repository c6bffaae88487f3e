"""The two networks that most upscalers are: RRDBNet of the ESRGAN family, and SRVGGNetCompact.

Both take RGB pictures (N, 3, H, W) in 0 to 1, of any size, and give (N, 3, scale·H, scale·W). The names of their parts are
those of Real-ESRGAN's files.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.model_manager.upscaler_file import COLOURS, CompactShape, RrdbShape, Shape

TOP_MARGIN = 2  # rows around a strip that the layers above the body see
TOP_BYTES = 96 << 20  # that the layers above the body may fill at once, about: they work at the finished size


def built(shape: Shape) -> nn.Module:
    """The network of this shape, without weights yet."""
    with torch.device("meta"):
        return RRDBNet(shape) if isinstance(shape, RrdbShape) else Compact(shape)


def conv(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, padding=1)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


class Dense(nn.Module):
    """Five convolutions, each of which sees all before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for at in range(1, 6):
            self.add_module(f"conv{at}", conv(channels + (at - 1) * growth, growth if at < 5 else channels))

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(leaky(layer(torch.cat(seen, 1))))
        return self.conv5(torch.cat(seen, 1)).mul_(0.2).add_(x)


class Block(nn.Module):
    """A residual-in-residual dense block: three dense ones."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for at in range(1, 4):
            self.add_module(f"rdb{at}", Dense(channels, growth))

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))).mul_(0.2).add_(x)


class RRDBNet(nn.Module):
    """Wang et al. 2018, "ESRGAN"; with the picture folded first, Wang et al. 2021, "Real-ESRGAN"."""

    def __init__(self, shape: RrdbShape) -> None:
        super().__init__()
        self.shape = shape
        wide = shape.channels
        self.conv_first = conv(COLOURS * shape.unshuffle**2, wide)
        self.body = nn.Sequential(*(Block(wide, shape.growth) for _ in range(shape.blocks)))
        self.conv_body = conv(wide, wide)
        self.ups = [f"conv_up{at + 1}" for at in range(shape.doublings)]
        for name in self.ups:
            self.add_module(name, conv(wide, wide))
        self.conv_hr, self.conv_last = conv(wide, wide), conv(wide, COLOURS)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        fold = self.shape.unshuffle
        x = F.pixel_unshuffle(F.pad(x, (0, -width % fold, 0, -height % fold), mode="replicate"), fold)
        features = self.conv_first(x)
        features = self.conv_body(self.body(features)).add_(features)
        scale = self.shape.scale
        return self._tops(features)[:, :, : height * scale, : width * scale]

    def _tops(self, features: Tensor) -> Tensor:
        """The layers above the body, strip by strip: at the finished size a whole picture's channels would fill the memory."""
        enlarged, height = 2**self.shape.doublings, features.shape[2]
        row = features.shape[0] * features.shape[1] * features.shape[3] * enlarged**2 * features.element_size()
        rows = max(TOP_BYTES // (3 * row), 4)
        strips = []
        for top in range(0, height, rows):
            bottom, first = min(top + rows, height), max(top - TOP_MARGIN, 0)
            strip = self._top(features[:, :, first : bottom + TOP_MARGIN])
            strips.append(strip[:, :, (top - first) * enlarged : (bottom - first) * enlarged])
        return torch.cat(strips, 2)

    def _top(self, x: Tensor) -> Tensor:
        for name in self.ups:
            x = leaky(self.get_submodule(name)(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))


class Compact(nn.Module):
    """SRVGGNetCompact of Real-ESRGAN: plain convolutions at the small size, added to the picture enlarged as it is."""

    def __init__(self, shape: CompactShape) -> None:
        super().__init__()
        self.shape = shape
        wide = shape.channels
        layers: list[nn.Module] = [conv(COLOURS, wide), nn.PReLU(wide)]
        for _ in range(shape.convolutions):
            layers += [conv(wide, wide), nn.PReLU(wide)]
        self.body = nn.Sequential(*layers, conv(wide, COLOURS * shape.scale**2))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.shape.scale
        return F.pixel_shuffle(self.body(x), scale).add_(F.interpolate(x, scale_factor=float(scale), mode="nearest"))
