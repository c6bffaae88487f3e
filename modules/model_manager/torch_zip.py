"""The header of a `.ckpt` as torch.save writes it since PyTorch 1.6: a zip of one pickle and one stored member a storage."""

from typing import BinaryIO

from modules.model_manager.pickle_reader import read_pickle
from modules.model_manager.stored import Header, Identity, Refused, Stretch
from modules.model_manager.torch_table import described
from modules.model_manager.zip_reader import read_members, unpack

MAX_PICKLE = 8 * 2**20


def read_torch_zip(file: BinaryIO, identity: Identity) -> Header:
    """The tensors of its `state_dict` (or of the outermost table). Raises Refused unless each lies inside its own member."""
    members = read_members(file, identity)
    folder = _folder(members)
    if f"{folder}byteorder" in members and unpack(file, members[f"{folder}byteorder"], 64) != b"little":
        raise Refused("saved on a big-endian machine: save it again on a common one")
    root = read_pickle(unpack(file, members[f"{folder}data.pkl"], MAX_PICKLE))
    tensors, metadata = described(root, lambda key: members.get(f"{folder}data/{key}"))
    return Header("zip", tensors, metadata, {"": identity})


def _folder(members: dict[str, Stretch]) -> str:
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise Refused("a zip archive, not a checkpoint: unpack it")
    if len(pickles) > 1:
        raise Refused("damaged: its zip holds two checkpoints in one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise Refused("a TorchScript program, not a checkpoint: a state dict is needed")
    return folder
