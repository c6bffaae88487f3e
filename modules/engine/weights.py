"""From a model file into networks: one tensor at a time, converted on the way, so that no second copy is ever held."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy
import torch
from torch import Tensor, nn

from modules.model_manager.stored import Refused
from modules.model_manager.tensors import Tensors

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


class Reader:
    """Reads the tensors called `names` through one scratch buffer; calls `each(fraction done)` before every one."""

    def __init__(self, tensors: Tensors, names: Iterable[str], each: Callable[[float], None]) -> None:
        sizes = [tensors.tensors[name].size for name in names]
        self._tensors = tensors
        self._each = each
        self._done, self._total = 0, sum(sizes)
        self._scratch = numpy.empty(max(sizes), numpy.uint8)

    def read(self, name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device, channels_last: bool) -> Tensor:
        """The tensor in memory of its own."""
        self._each(self._done / self._total)
        info = self._tensors.tensors[name]
        stored = torch.from_numpy(self._tensors.read(name, into=self._scratch[: info.size])).view(DTYPES[info.dtype]).view(shape)
        self._done += info.size
        layout = torch.channels_last if channels_last and len(shape) == 4 else torch.contiguous_format
        return torch.empty(shape, dtype=dtype, device=device, memory_format=layout).copy_(stored)


def fill(
    module: nn.Module, name_of: Callable[[str], str], reader: Reader, dtype: torch.dtype, device: torch.device, channels_last: bool
) -> None:
    """Gives a module built on the meta device its weights. `name_of` says what each of its parameters is called in the file.

    Refused if all of them are zero.
    """
    state = {
        key: reader.read(name_of(key), parameter.shape, dtype, device, channels_last) for key, parameter in module.state_dict().items()
    }
    if not any(bool(weight.flatten()[:1000].any()) for weight in state.values()):
        raise Refused("all numbers of one of its networks are zero: a failed conversion or download; download it again")
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False).eval()


@contextmanager
def checking(check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` before every layer of every network, so that what it raises stops a forward pass in its middle."""
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: check())
    try:
        yield
    finally:
        handle.remove()
