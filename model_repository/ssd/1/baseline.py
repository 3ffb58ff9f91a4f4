"""Headers of JPEG files that a GPU's engine decodes: whole, baseline, and in the colours and samplings of cameras.

Reading one takes a tenth of what PIL takes, and needs nothing but Python. What is not understood here is left to PIL.
"""

import struct

MAX_SIDE_PX = 8192
"""Images with a longer side are left to the CPU: the engine's buffers are for ordinary ones."""
MAX_SEGMENTS = 64
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
    place, is_usual, size, channels = 2, False, None, 0
    for _ in range(MAX_SEGMENTS):
        segment = data[place : place + 24]
        if len(segment) < 24 or segment[0] != 0xFF or place > MAX_HEADER_BYTES:
            return None
        marker, length = segment[1], segment[2] << 8 | segment[3]
        if marker == SCAN:
            return size if is_usual and segment[4] == channels else None
        if marker == APP0 and segment[4:9] == b"JFIF\0":
            is_usual = True
        elif marker == APP14 and segment[4:9] == b"Adobe":
            if segment[15] != YCC:
                return None
            is_usual = True
        elif marker == BASELINE:
            bits, height, width, channels = _FRAME.unpack_from(segment, 4)
            samplings = segment[11 : 11 + 3 * channels : 3]
            if bits != 8 or samplings not in SAMPLINGS or not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
                return None
            size = (width, height)
            # Without a word about colours, libjpeg goes by the names of the channels.
            is_usual = is_usual or channels == 1 or segment[10:19:3] == b"\1\2\3"
        elif marker not in PASSED:
            return None
        place += 2 + length
    return None
