"""The random numbers of NVIDIA cards, computed on the CPU: Philox 4x32-10 (Salmon et al. 2011) and the transform of Box and Muller."""

import numpy

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
UNIT, TURN = (float(numpy.float32(value)) for value in (2**-32, 2.3283064e-10 * 6.2831855))  # 2 pi 2^-32, as the card has it
LOW = numpy.uint64(0xFFFFFFFF)

Words = numpy.ndarray
"""uint64 that hold 32 bits each, so that products do not overflow."""


def philox(counter: list[Words], key: tuple[int, int]) -> list[Words]:
    """Four random words of 32 bits for each counter of four words."""
    a, b, c, d = counter
    for step in range(ROUNDS):
        k0, k1 = (numpy.uint64((part + step * bump) & 0xFFFFFFFF) for part, bump in zip(key, KEY_STEPS, strict=True))
        first, second = (word * numpy.uint64(factor) for word, factor in zip((a, c), MULTIPLIERS, strict=True))
        a, b, c, d = (second >> 32) ^ b ^ k0, second & LOW, (first >> 32) ^ d ^ k1, first & LOW
    return [a, b, c, d]


def normal(seed: int, draw: int, count: int) -> numpy.ndarray:
    """What the card's `randn` of `count` float32 numbers gives as the `draw`th (from 0) after this seed, of 64 bits."""
    zeros = numpy.zeros(count, numpy.uint64)
    counter = [zeros + numpy.uint64(draw), zeros, numpy.arange(count, dtype=numpy.uint64), zeros]
    x, y, _, _ = philox(counter, (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    u, v = x * UNIT + UNIT / 2, y * TURN + TURN / 2
    return (numpy.sqrt(-2 * numpy.log(u)) * numpy.sin(v)).astype(numpy.float32)
