"""The header of a `.ckpt` as torch.save wrote it before PyTorch 1.6: pickles one after the other, then the storages.

Five pickles: a magic number, the protocol, the machine, what was saved, and the keys of the storages in the order in which they
follow, each as its number of elements (int64) and then these.
"""

import io
from typing import BinaryIO

from modules.model_manager.pickle_objects import Storage
from modules.model_manager.pickle_reader import CutShort, read_next
from modules.model_manager.stored import ITEM_SIZE, Header, Identity, Refused, Stretch, amount, read_exactly
from modules.model_manager.torch_table import described, number_format

MAX_PICKLES = 8 * 2**20
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
COUNT = 8  # bytes of a storage's number of elements
BARE = "a bare pickle, not a checkpoint by torch.save: save it again with torch.save, or get the .safetensors"


def read_torch_legacy(file: BinaryIO, identity: Identity) -> Header:
    """The tensors of its `state_dict` (or of the outermost table). Raises Refused unless the storages fill the file exactly."""
    head = io.BytesIO(read_exactly(file, 0, min(identity.size, MAX_PICKLES)))
    try:
        if read_next(head)[0] != MAGIC:
            raise Refused(BARE)
        (protocol, _), (machine, _), (root, storages), (keys, _) = (read_next(head) for _ in range(4))
    except CutShort as refusal:
        if identity.size > MAX_PICKLES:
            raise
        raise Refused(f"incomplete: only the first {amount(identity.size)}; download it again") from refusal
    if protocol != PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise Refused("saved by another program, or on a big-endian machine: save it again with a present PyTorch")
    stretches = _stretches(file, identity.size, head.tell(), keys, storages)
    tensors, metadata = described(root, stretches.get)
    return Header("legacy", tensors, metadata, {"": identity})


def _stretches(file: BinaryIO, size: int, at: int, keys: object, storages: dict[str, Storage]) -> dict[str, Stretch]:
    """Where each storage's bytes are. What the list of keys says must be what follows, to the last byte."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise Refused("damaged: its list of storages is not that of its tensors; download it again")
    stretches: dict[str, Stretch] = {}
    for key in keys:
        bytes_ = storages[key].numel * ITEM_SIZE[number_format(f"storage {key}", storages[key].kind)]
        if at + COUNT <= size and int.from_bytes(read_exactly(file, at, COUNT), "little") != storages[key].numel:
            raise Refused("damaged: a storage is not as long as its tensors say; download it again")
        stretches[key] = Stretch(at + COUNT, bytes_, bytes_)
        at += COUNT + bytes_
    if at > size:
        raise Refused(f"incomplete: {amount(size)} of {amount(at)} ({at - size:,} bytes are missing); download it again")
    if at < size:
        raise Refused(f"damaged: {amount(size - at)} after its last tensor belong to nothing")
    return stretches
