"""The directory of a zip file, checked so strictly that there is one reading of it: no hidden, doubled or overlapping members.

Layout: PKWARE's APPNOTE 6.3, sections 4.3 (records) and 4.5.3 (zip64). What torch.save, Python's zipfile and Info-ZIP write passes.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from modules.model_manager.stored import Identity, Refused, Stretch, amount, read_exactly, shown

LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64, DESCRIPTOR = b"PK\x06\x06", b"PK\x06\x07", b"PK\x07\x08"
STORED, DEFLATED = 0, 8
ENCRYPTED, DESCRIBED, STRONG, MASKED = 1 << 0, 1 << 3, 1 << 6, 1 << 13
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF
MAX_DIRECTORY = 16 * 2**20
MAX_MEMBERS = 60_000
MAX_EXPANSION = 20
FREE_EXPANSION = 256 * 2**20


@dataclass(frozen=True, slots=True)
class _Entry:
    """One record of the central directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def read_members(file: BinaryIO, identity: Identity) -> dict[str, Stretch]:
    """Every member of the archive by name. Raises Refused unless directory and local headers agree and account for every byte."""
    count, start, length = _find_directory(file, identity.size)
    entries = _entries(read_exactly(file, start, length), count)
    if sum(entry.size for entry in entries) > MAX_EXPANSION * identity.size + FREE_EXPANSION:
        raise Refused(f"a zip bomb: {amount(identity.size)} that would unpack to {amount(sum(entry.size for entry in entries))}")
    members: dict[str, Stretch] = {}
    at = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset != at:
            raise Refused("damaged: its zip members overlap or leave gaps")
        offset = _check_local(file, entry, start)
        name = _text(entry.name)
        if name in members:
            raise Refused(f"damaged: its zip names {shown(name)} twice")
        members[name] = Stretch(offset, entry.packed, entry.size, entry.method == DEFLATED, entry.crc)
        at = offset + entry.packed + _descriptor(file, entry, offset + entry.packed, start)
    if at != start:
        raise Refused("damaged: bytes in its zip belong to no member")
    return members


def unpack(file: BinaryIO, member: Stretch, limit: int) -> bytes:
    """A small member whole, at most `limit` bytes, its CRC checked."""
    if member.size > limit or member.packed > limit:
        raise Refused(f"damaged: a part that should be small would be {amount(max(member.size, member.packed))}")
    data = read_exactly(file, member.offset, member.packed)
    if member.deflated:
        data = inflate(data, member.size)
    if zlib.crc32(data) != member.crc:
        raise Refused("damaged: a checksum in it does not match; download it again")
    return data


def inflate(data: bytes | memoryview, size: int) -> bytes:
    """Exactly `size` bytes out of one whole deflate stream. Raises Refused for any other outcome."""
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = engine.decompress(data, size + 1)
    except zlib.error as error:
        raise Refused("damaged: a compressed part cannot be unpacked; download it again") from error
    if len(plain) != size or not engine.eof or engine.unused_data:
        raise Refused("damaged: a compressed part is not as long as it says; download it again")
    return plain


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Number of entries, offset and length of the central directory, which must end where the end record begins."""
    end = size - 22
    tail = read_exactly(file, max(end, 0), 22) if end > 0 else b""
    if not tail.startswith(END):
        _explain_end(file, size)
    disk, first_disk, here, count, length, start, comment = struct.unpack("<4H2IH", tail[4:])
    if disk or first_disk or here != count or comment:
        raise Refused("damaged: the end of its zip makes no sense")
    locator = read_exactly(file, end - 20, 20) if end >= 76 else b""
    if locator.startswith(LOCATOR64):
        number, at, disks = struct.unpack("<IQI", locator[4:])
        count, length, start = _end64(file, at, (count, length, start))
        if number or disks != 1 or at + 56 != end - 20:
            raise Refused("damaged: the end of its zip makes no sense")
        end = at
    if start + length != end or length > MAX_DIRECTORY or count * 46 > length:
        raise Refused("damaged: the directory of its zip is not where it should be (bytes before or after the zip?)")
    if count > MAX_MEMBERS:
        raise Refused(f"its zip holds {count} members, more than the {MAX_MEMBERS} that are read")
    return count, start, length


def _end64(file: BinaryIO, at: int, short: tuple[int, int, int]) -> tuple[int, int, int]:
    record = read_exactly(file, at, 56) if at < 2**62 else b""
    if not record.startswith(END64):
        raise Refused("damaged: the end of its zip makes no sense")
    _, _, _, disk, first_disk, here, count, length, start = struct.unpack("<Q2H2I4Q", record[4:])
    agree = all(small in (full, large) for small, full, large in zip(short, (FULL16, FULL32, FULL32), (count, length, start), strict=True))
    if disk or first_disk or here != count or not agree or max(length, start) >= 2**62:
        raise Refused("damaged: the two ends of its zip disagree")
    return count, length, start


def _explain_end(file: BinaryIO, size: int) -> None:
    tail = read_exactly(file, max(0, size - 2**16 - 22), min(size, 2**16 + 22))
    if END in tail:
        raise Refused("damaged: there are bytes after the end of its zip")
    raise Refused(f"incomplete: only the first {amount(size)} of a zip, its end is missing; download it again")


def _entries(directory: bytes, count: int) -> list[_Entry]:
    entries, at = [], 0
    for _ in range(count):
        record = directory[at : at + 46]
        if len(record) < 46 or not record.startswith(CENTRAL):
            raise Refused("damaged: the directory of its zip is malformed")
        flags, method, crc, packed, size, name, extra, comment, disk, offset = struct.unpack("<4x2H4x3I4H6xI", record[4:])[:10]
        at += 46
        fields = directory[at + name : at + name + extra]
        if len(fields) != extra or disk not in (0, FULL16):
            raise Refused("damaged: the directory of its zip is malformed")
        size, packed, offset = _wide(fields, (size, packed, offset))
        entries.append(_checked(_Entry(directory[at : at + name], flags, method, crc, packed, size, offset)))
        at += name + extra + comment
    if at != len(directory):
        raise Refused("damaged: the directory of its zip is malformed")
    return entries


def _wide(fields: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and offset, those at 32 bits' limit taken from the zip64 field (APPNOTE 4.5.3)."""
    wanted = sum(value == FULL32 for value in values)
    if not wanted:
        return values
    while len(fields) >= 4:
        kind, length = struct.unpack("<2H", fields[:4])
        if kind == 1 and length >= 8 * wanted and len(fields) >= 4 + 8 * wanted:
            wide = iter(struct.unpack(f"<{wanted}Q", fields[4 : 4 + 8 * wanted]))
            size, packed, offset = (next(wide) if value == FULL32 else value for value in values)
            return size, packed, offset
        fields = fields[4 + length :]
    raise Refused("damaged: the directory of its zip is malformed")


def _checked(entry: _Entry) -> _Entry:
    if entry.flags & (ENCRYPTED | STRONG | MASKED):
        raise Refused("encrypted: unpack it with its password, then save it again")
    if entry.method not in (STORED, DEFLATED):
        raise Refused(f"its zip uses a compression that is not supported (method {entry.method})")
    if entry.method == STORED and entry.packed != entry.size:
        raise Refused("damaged: the directory of its zip is malformed")
    return entry


def _check_local(file: BinaryIO, entry: _Entry, directory: int) -> int:
    """Compares the member's own header with the directory and returns where its bytes begin."""
    record = read_exactly(file, entry.offset, 30 + len(entry.name)) if entry.offset + 30 + len(entry.name) <= directory else b""
    if not record.startswith(LOCAL):
        raise Refused("damaged: a member of its zip is not where the directory says")
    flags, method, crc, packed, size, name, extra = struct.unpack("<2x2H4x3I2H", record[4:30])
    if (flags, method, record[30:]) != (entry.flags, entry.method, entry.name) or name != len(entry.name):
        raise Refused(f"damaged: its zip calls a member {shown(_text(entry.name))} in one place and otherwise in another")
    offset = entry.offset + 30 + name + extra
    if offset + entry.packed > directory:
        raise Refused("damaged: a member of its zip reaches beyond the end")
    if not flags & DESCRIBED:
        fields = read_exactly(file, entry.offset + 30 + name, extra)
        size, packed, _ = _wide(fields, (size, packed, 0))
        if (crc, packed, size) != (entry.crc, entry.packed, entry.size):
            raise Refused("damaged: a member of its zip and the directory disagree about its size")
    return offset


def _descriptor(file: BinaryIO, entry: _Entry, at: int, directory: int) -> int:
    """Length of the record that follows a member written as a stream (APPNOTE 4.3.9), which must agree with the directory."""
    if not entry.flags & DESCRIBED:
        return 0
    record = read_exactly(file, at, min(24, directory - at))
    for layout in ("<4sI2I", "<4sI2Q"):
        length = struct.calcsize(layout)
        expected = (DESCRIPTOR, entry.crc, entry.packed, entry.size)
        if len(record) >= length and struct.unpack(layout, record[:length]) == expected:
            return length
    raise Refused("damaged: a member of its zip and the directory disagree about its size")


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("damaged: a member of its zip has no readable name") from error
