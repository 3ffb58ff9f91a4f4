"""Mutates files as a black-box fuzzer does, with a little knowledge of image formats.

The operations are the usual ones of AFL and libFuzzer: flipped bits, interesting integers, blocks that are deleted,
repeated or copied from other files, and words from a dictionary. The checksums of a PNG are usually corrected
afterwards, since a decoder would otherwise reject the file at once.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Mapping

_HEADER_BYTES = 96
"""Bytes at the beginning of a file, where most formats keep sizes, depths and offsets."""
_MAX_OPERATIONS = 4
_MAX_INSERTED_BYTES = 4096
_PNG = b"\x89PNG\r\n\x1a\n"
_INTERESTING = (
    *range(4),
    *(7, 8, 15, 16, 31, 32, 64, 100, 127, 128, 255, 256, 512, 1000, 1024, 4096, 32767, 32768, 65535, 65536, 100_000),
    *(2**24, 2**27, 2**31 - 1, 2**31, 2**32 - 1),
)
_TIFF_TAGS = (*range(254, 260), 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 530)
_TIFF_TYPES = (1, 3, 4, 5, 12)
_DICTIONARY = (
    *(b"\xff" + bytes([marker]) for marker in range(0xC0, 0xFF)),
    *b"IHDR PLTE IDAT IEND tRNS iCCP zTXt iTXt eXIf acTL fcTL fdAT pHYs".split(),
    *(b"II*\0", b"MM\0*", b"II+\0", b"Exif\0\0", b"MPF\0"),
    *(struct.pack("<HH", tag, kind) for tag in _TIFF_TAGS for kind in _TIFF_TYPES),
    *(b"RIFF", b"WEBP", b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "),
    *(b"GIF87a", b"GIF89a", b"!\xf9\x04", b"!\xfe", b"!\xff\x0bNETSCAPE2.0", b",", b";"),
    *b"P1 P2 P3 P4 P5 P6 Pf PF #".split(),
    *(b"\n", b"BM", b"\x28\0\0\0"),
)

Operation = Callable[[random.Random, bytearray, list[bytes]], None]


def mutate(seed: int, index: int, corpus: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Make the input of a number, which is always the same for the same seed and corpus.

    Returns:
        The name of the file that was mutated, and the bytes of the input.
    """
    rng = random.Random(f"{seed}:{index}")  # noqa: S311 - to be repeated, not to be unguessable
    name = rng.choice(list(corpus))
    data = bytearray(corpus[name])
    others = list(corpus.values())
    for _ in range(rng.randint(1, _MAX_OPERATIONS)):
        rng.choice(_OPERATIONS)(rng, data, others)
    if data.startswith(_PNG) and rng.random() < 0.8:
        data = _with_checksums(data)
    return name, bytes(data)


def _flip_bits(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    for _ in range(rng.randint(1, 8)):
        if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_header_bits(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    for _ in range(rng.randint(1, 4)):
        if data:
            data[rng.randrange(min(len(data), _HEADER_BYTES))] ^= 1 << rng.randrange(8)


def _set_integer(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    size = rng.choice((1, 2, 4))
    end = len(data) if rng.random() < 0.5 else min(len(data), _HEADER_BYTES)
    at = rng.randrange(max(end, 1))
    value = rng.choice(_INTERESTING) % 256**size
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _set_random_bytes(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    at, size = rng.randrange(len(data) + 1), rng.randint(1, 32)
    data[at : at + size] = rng.randbytes(size)


def _truncate(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _delete_block(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.randint(1, 64)]


def _repeat_block(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    block = data[at : at + rng.randint(1, 64)]
    data[at:at] = (block * rng.choice((1, 2, 16, 256)))[:_MAX_INSERTED_BYTES]


def _insert_random(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randint(1, 64))


def _splice(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    """Replace the end of the file by the end of another one."""
    other = rng.choice(others)
    data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other)) :]


def _copy_from_other(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    other = rng.choice(others)
    begin, at, size = rng.randrange(len(other)), rng.randrange(len(data) + 1), rng.randint(1, 128)
    data[at : at + (size if rng.random() < 0.5 else 0)] = other[begin : begin + size]


def _use_dictionary(rng: random.Random, data: bytearray, others: list[bytes]) -> None:
    word, at = rng.choice(_DICTIONARY), rng.randrange(len(data) + 1)
    data[at : at + (len(word) if rng.random() < 0.5 else 0)] = word


_OPERATIONS: tuple[Operation, ...] = (
    _flip_bits,
    _flip_header_bits,
    _set_integer,
    _set_integer,
    _set_random_bytes,
    _truncate,
    _delete_block,
    _repeat_block,
    _insert_random,
    _splice,
    _copy_from_other,
    _use_dictionary,
)


def _with_checksums(data: bytearray) -> bytearray:
    """Return a PNG with corrected checksums, as far as the lengths of its chunks are valid."""
    result, at = bytearray(data), len(_PNG)
    while at + 12 <= len(result):
        size = int.from_bytes(result[at : at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(result):
            break
        result[end : end + 4] = zlib.crc32(result[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return result
