"""Which JPEG files a GPU's engine decodes: whole, well-formed baseline files in the colours and samplings of cameras.

The engine's decoder is not for files of strangers: one that it does not expect may end its process. So it gets only
what passes every check here, and of that only what it needs. All other files are left to PIL. Needs NumPy and
Pillow only.
"""

import struct
from functools import lru_cache

import numpy as np
from untrusted import check_size, jpeg_work_px

MAX_SIDE_PX = 8192
"""Images with a longer side are left to the CPU: the engine's buffers are for ordinary ones."""
MAX_SEGMENTS = 64
MAX_HEADER_BYTES = 8 << 20
"""As in ``untrusted.py``."""
MAX_KNOWN_BYTES = 2048
"""Of a header that is remembered; an ordinary one has some 600."""
START, END = b"\xff\xd8", b"\xff\xd9"
APP0, APP14, COMMENT = 0xE0, 0xEE, 0xFE
BASELINE, HUFFMAN, QUANTISATION, RESTARTS, SCAN = 0xC0, 0xC4, 0xDB, 0xDD, 0xDA
RESTART_MARKERS = bytes(range(0xD0, 0xD8))
"""They take turns."""
SKIPPED = {*range(0xE0, 0xF0), COMMENT}
"""Markers whose segments the engine does not need: EXIF, colour profiles, previews and comments."""
SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
"""Samples beside and above each other, four bits each, of the channels: grey, and 4:4:4, 4:2:2, 4:2:0. Of 4:4:0 nobody
has compared the GPU's pixels with PIL's."""
YCC = 1
"""What Adobe's marker says of brightness and colours."""
JFIF_BYTES, ADOBE_BYTES = 16, 14
"""Lengths of these segments, without a preview."""
ALL_COEFFICIENTS = b"\x00\x3f\x00"
"""The end of a baseline scan's header: coefficients 0 to 63, all bits of each."""
DC_SYMBOLS = frozenset(range(12))
AC_SYMBOLS = frozenset([0x00, 0xF0, *(run << 4 | bits for run in range(16) for bits in range(1, 11))])
"""What codes of 8-bit images stand for: a length in bits, after a run of zeros, the end of a block, 16 zeros."""
_FRAME = struct.Struct(">BHHB")


def check_file(data, limits):
    """Give (width, height) of a file that the engine decodes, its work in pixels, and its bytes for the engine.

    None for a file that PIL opens.

    Raises:
        RefusedInputError: It is not within the ``DecodingLimits`` of one image.
    """
    found = for_engine(data) if len(data) <= limits.max_file_bytes else None
    if found is None:
        return None
    size_px, engine_data, pixels_from = found
    check_size(*size_px, min_side_px=limits.min_side_px, max_pixels=limits.max_pixels)
    # Among the compressed pixels no scan begins: that has been checked.
    scans = data.count(bytes([0xFF, SCAN]), 0, pixels_from)
    return size_px, jpeg_work_px(size_px[0] * size_px[1], scans), engine_data


def for_engine(data):
    """Give (width, height) of a file that the engine decodes as PIL does, its bytes for it, and where its pixels begin.

    None for all other files. Those are progressive ones, CMYK, RGB without conversion, rare samplings, and everything
    damaged as far as that can be seen without decoding. The bytes are the file without EXIF, colour profiles, previews
    and comments.
    """
    if not (data.startswith(START) and data.endswith(END)):
        return None
    needed, pixels_from = _needed(data)
    header = (_read if len(needed) <= MAX_KNOWN_BYTES else _read.__wrapped__)(needed)
    if header is None or not header.fits(data, pixels_from):
        return None
    return header.size, data if len(needed) == pixels_from else needed + data[pixels_from:], pixels_from


def _needed(data):
    """Give the header without what the engine does not need, and where the pixels begin; nothing if they never do."""
    kept, kept_from = [], 0
    for marker, segment, place, end in _segments(data, len(data) - len(END)):
        if marker == SCAN:
            return b"".join([*kept, data[kept_from:end]]), end
        if marker in SKIPPED and not _names_colours(marker, segment):
            kept.append(data[kept_from:place])
            kept_from = end
    return b"", 0


@lru_cache(256)
def _read(needed):
    """Read a header; None for what is left to PIL. A camera's files have the same one."""
    header = _Header()
    for marker, segment, _, _ in _segments(needed, len(needed)):
        if marker == SCAN:
            return header if header.can_begin(segment) else None
        if not header.take(marker, segment):
            break
    return None


def _segments(data, limit):
    """Markers, what follows their lengths, and where each begins and ends, as far as all end within the limit."""
    place = len(START)
    for _ in range(MAX_SEGMENTS):
        body = place + 4
        if data[place : place + 1] != b"\xff" or body > min(len(data), MAX_HEADER_BYTES):
            return
        marker, end = data[place + 1], place + 2 + (data[place + 2] << 8 | data[place + 3])
        if not body <= end <= limit:
            return
        yield marker, data[body:end], place, end
        place = end


def _names_colours(marker, segment):
    """Whether a segment of an application matters for the colours."""
    return (marker == APP0 and segment.startswith(b"JFIF\0")) or (marker == APP14 and segment.startswith(b"Adobe"))


class _Header:
    """What a file says of itself before its pixels."""

    def __init__(self):
        self.size, self.names, self.sampling, self.is_usual = None, b"", b"", False
        self.tables, self.used = {}, b""
        self.quantisations, self.restart_interval = set(), 0
        self.shortest_bits = 0

    def take(self, marker, segment):
        """Read a segment; False for what is left to PIL."""
        if marker == APP0:
            self.is_usual = True
            return len(segment) + 2 == JFIF_BYTES
        if marker == APP14:
            self.is_usual = True
            return len(segment) + 2 == ADOBE_BYTES and segment[11] == YCC
        if marker == QUANTISATION:
            return self._take_quantisations(segment)
        if marker == HUFFMAN:
            tables = huffman_tables(segment)
            self.tables.update(tables)
            return bool(tables)
        if marker == RESTARTS:
            self.restart_interval = int.from_bytes(segment, "big")
            return len(segment) == 2
        return marker == BASELINE and self._take_frame(segment)

    def can_begin(self, segment):
        """Whether a scan with this header has all channels, and all that it refers to."""
        n = len(self.names)
        if not (self.size and self.is_usual and self.quantisations.issuperset(self.used)):
            return False
        if len(segment) != 4 + 2 * n or segment[0] != n or segment[1 + 2 * n :] != ALL_COEFFICIENTS:
            return False
        if segment[1 : 1 + 2 * n : 2] != self.names:
            return False
        for tables, sampling in zip(segment[2 : 2 + 2 * n : 2], self.sampling, strict=True):
            dc, ac = self.tables.get(tables >> 4), self.tables.get(0x10 | tables & 0xF)
            if dc is None or ac is None:
                return False
            self.shortest_bits += (dc + ac) * (sampling >> 4) * (sampling & 0xF)
        return True

    def fits(self, data, start):
        """Whether the compressed pixels go on to the file's end, with the restarts that the header asks for."""
        width, height = (
            -(-side // (8 * step)) for side, step in zip(self.size, divmod(self.sampling[0], 16), strict=True)
        )
        units = width * height
        # A file that was cut, and got an end again.
        if (len(data) - len(END) - start) * 8 < units * self.shortest_bits:
            return False
        restarts = -(-units // self.restart_interval) - 1 if self.restart_interval else 0
        # What follows each ff is zero but for markers, and these are the restarts and the end.
        after = np.frombuffer(data, np.uint8, offset=start)
        is_marker = (after[:-1] == 0xFF) & (after[1:] != 0)
        if np.count_nonzero(is_marker) != restarts + 1:
            return False
        found = after[1:][is_marker].tobytes() if restarts else END[1:]
        return found == (RESTART_MARKERS * (restarts // 8 + 1))[:restarts] + END[1:]

    def _take_quantisations(self, segment):
        """Tables of 8 bits, each of its full length, without zeros."""
        tables = [segment[first : first + 65] for first in range(0, len(segment), 65)]
        self.quantisations.update(table[0] for table in tables)
        return bool(tables) and all(len(table) == 65 and table[0] <= 3 and 0 not in table[1:] for table in tables)

    def _take_frame(self, segment):
        if self.size or len(segment) < _FRAME.size:
            return False
        bits, height, width, channels = _FRAME.unpack_from(segment)
        self.size = (width, height)
        self.names, self.sampling, self.used = segment[6::3], segment[7::3], segment[8::3]
        # Without a word about colours, libjpeg goes by the names of the channels.
        self.is_usual = self.is_usual or channels == 1 or self.names == b"\1\2\3"
        return (
            (bits == 8 and channels * 3 == len(segment) - _FRAME.size and self.sampling in SAMPLINGS)
            and len(set(self.names)) == channels
            and (min(self.size) > 0 and max(self.size) <= MAX_SIDE_PX)
        )


@lru_cache(256)
def huffman_tables(segment):
    """Length of the shortest code, for each table of a segment by its class and number; none if one is not baseline's.

    Most files have one of a few sets of tables.
    """
    found, place = {}, 0
    while place < len(segment):
        name, counts = segment[place], segment[place + 1 : place + 17]
        n = sum(counts)
        symbols = segment[place + 17 : place + 17 + n]
        if name not in {0x00, 0x01, 0x10, 0x11} or len(counts) < 16 or len(symbols) < n or not _is_prefix_code(counts):
            return {}
        distinct = set(symbols)
        if len(distinct) < n or not distinct <= (AC_SYMBOLS if name >> 4 else DC_SYMBOLS):
            return {}
        found[name] = next(bits for bits, count in enumerate(counts, 1) if count)
        place += 17 + n
    return found


def _is_prefix_code(counts):
    """Whether there are codes of these lengths, 1 to 16 bits, and none of them is all ones."""
    code = 0
    for bits, count in enumerate(counts, 1):
        code += count
        if count and code >= 1 << bits:
            return False
        code <<= 1
    return any(counts)
