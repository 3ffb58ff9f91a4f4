"""A camera on the network: an RTSP server (RFC 2326) that sends one picture again and again until nobody listens."""

from __future__ import annotations

import contextlib
import itertools
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from ssd_triton.common.arrays import UInt8Array

FPS = 10
_SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
"""Payload type 33 is an MPEG transport stream (RFC 3551)."""
_TS_BYTES = 7 * 188


class _RtpOverTcp:
    """A file whose transport stream goes to a socket as RTP packets, interleaved with RTSP (RFC 2326, 10.12)."""

    def __init__(self, connection: socketserver.StreamRequestHandler) -> None:
        self._connection = connection
        self._rest = b""
        self._numbers = itertools.cycle(range(1 << 16))
        self.closed_by_viewer = False

    def write(self, data: bytes) -> int:
        self._rest += data
        while len(self._rest) >= _TS_BYTES:
            part, self._rest = self._rest[:_TS_BYTES], self._rest[_TS_BYTES:]
            clock = int(time.monotonic() * 90_000) & 0xFFFFFFFF
            packet = struct.pack("!BBHII", 0x80, 33, next(self._numbers), clock, 1) + part
            try:
                self._connection.wfile.write(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
            except OSError:
                self.closed_by_viewer = True
        return len(data)


class _Camera(socketserver.StreamRequestHandler):
    """One viewer."""

    image_rgb: UInt8Array

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while request := self._request():
                method, sequence, transport = request
                if method == "SETUP" and "TCP" not in transport:
                    self._answer(sequence, "461 Unsupported Transport")
                    continue
                headers = {
                    "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
                    "DESCRIBE": "Content-Type: application/sdp\r\n",
                    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
                }.get(method, "Session: 1\r\n")
                self._answer(sequence, "200 OK", headers, _SDP if method == "DESCRIBE" else "")
                if method == "PLAY":
                    self._play()
                    return

    def _request(self) -> tuple[str, str, str] | None:
        lines = list(iter(lambda: self.rfile.readline().decode("latin-1").strip(), ""))
        if not lines:
            return None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return lines[0].split()[0], headers.get("cseq", "0"), headers.get("transport", "")

    def _answer(self, sequence: str, status: str, headers: str = "", body: str = "") -> None:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        self.wfile.write(f"RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{headers}{length}\r\n{body}".encode())

    def _play(self) -> None:
        height_px, width_px = self.image_rgb.shape[:2]
        viewer = _RtpOverTcp(self)
        with av.open(viewer, "w", format="mpegts", options={"flush_packets": "1"}) as container:
            stream = container.add_stream("mpeg2video", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
            for number in itertools.count():
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(self.image_rgb), format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, FPS)
                container.mux(stream.encode(picture))
                if viewer.closed_by_viewer:
                    return
                time.sleep(1 / FPS)


@contextlib.contextmanager
def rtsp_camera(image_rgb: UInt8Array) -> Iterator[str]:
    """Serve a picture of even width and height; the address."""
    handler = type("Camera", (_Camera,), {"image_rgb": image_rgb})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        server.shutdown()
        thread.join()
