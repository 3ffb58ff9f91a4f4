# Written from ssd/1/baseline.py by the build, do not edit. Digest: 2b20886087c2071b
"""Headers of JPEG files that a GPU's engine decodes: whole, baseline, and in the colours and samplings of cameras.

Reading one takes a tenth of what PIL takes, and needs nothing but Python. What is not understood here is left to PIL.
"""

import struct

MAX_SIDE_PX = 8192
"""Images with a longer side are left to the CPU: the engine's buffers are for ordinary ones."""
MAX_SEGMENTS = 64
SEGMENT_BYTES = 24
"""Of a segment that are looked at: up to the samplings of three channels."""
MAX_HEADER_BYTES = 8 << 20
"""As in ``untrusted.py``."""
START, END = b"\xff\xd8", b"\xff\xd9"
APP0, APP14, BASELINE, SCAN = 0xE0, 0xEE, 0xC0, 0xDA
PASSED = {*range(0xE0, 0xF0), 0xC4, 0xDB, 0xDD, 0xFE}
"""Markers of applications, tables, restarts and comments: their segments are passed over."""
SAMPLINGS = (b"\x11", b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
"""Samples beside and above each other, four bits each, of the channels: grey, and 4:4:4, 4:2:2, 4:2:0."""
YCC = 1
"""What Adobe's marker says of brightness and colours."""
_FRAME = struct.Struct(">BHHB")


def baseline_size(data):
    """Width and height of a JPEG file that the engine decodes as PIL does; None for all other files.

    Those are progressive ones, CMYK, RGB without conversion, rare samplings, and files without an end.
    """
    if not (data.startswith(START) and data.endswith(END)):
        return None
    header = _Header()
    for marker, segment in _segments(data):
        if marker == SCAN:
            return header.size if header.is_usual and segment[4] == header.channels else None
        if not header.take(marker, segment):
            return None
    return None


def _segments(data):
    """Markers with the first bytes of their segments, as far as they follow each other."""
    place = len(START)
    for _ in range(MAX_SEGMENTS):
        segment = data[place : place + SEGMENT_BYTES]
        if len(segment) < SEGMENT_BYTES or segment[0] != 0xFF or place > MAX_HEADER_BYTES:
            return
        yield segment[1], segment
        place += 2 + (segment[2] << 8 | segment[3])


class _Header:
    """What a file says of itself before its pixels."""

    def __init__(self):
        self.size, self.channels, self.is_usual = None, 0, False

    def take(self, marker, segment):
        """Read a segment; False for what is left to PIL."""
        if marker == APP0 and segment[4:9] == b"JFIF\0":
            self.is_usual = True
        elif marker == APP14 and segment[4:9] == b"Adobe":
            self.is_usual = True
            return segment[15] == YCC
        elif marker == BASELINE:
            return self._take_frame(segment)
        return marker in PASSED

    def _take_frame(self, segment):
        bits, height, width, self.channels = _FRAME.unpack_from(segment, 4)
        self.size = (width, height)
        # Without a word about colours, libjpeg goes by the names of the channels.
        self.is_usual = self.is_usual or self.channels == 1 or segment[10:19:3] == b"\1\2\3"
        samplings = segment[11 : 11 + 3 * self.channels : 3]
        return bits == 8 and samplings in SAMPLINGS and min(self.size) > 0 and max(self.size) <= MAX_SIDE_PX
