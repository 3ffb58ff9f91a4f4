"""A window on the screen for a video."""

from __future__ import annotations

import os
import re
import sys
from types import TracebackType

import cv2

from ssd_triton.common.arrays import UInt8Array
from ssd_triton.common.errors import UserError

_ESCAPE_KEY = 27


class Window:
    """Shows pictures; a context manager that closes the window.

    Args:
        title: Title of the window.

    Raises:
        UserError: There is no screen, or OpenCV was built without windows.
    """

    def __init__(self, title: str) -> None:
        if re.search(r"GUI:\s+NONE", cv2.getBuildInformation()):
            raise UserError(
                "--display: got OpenCV without windows (opencv-python-headless), expected opencv-python; run: "
                f"pip uninstall -y opencv-python-headless && pip install 'opencv-python=={cv2.__version__}.*'"
            )
        # Without a display server, OpenCV's GUI library would end the whole process.
        if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
            raise UserError("--display: got no screen (DISPLAY is not set), expected a desktop; omit --display")
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        self._title = title

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cv2.destroyWindow(self._title)

    def show(self, image_rgb: UInt8Array) -> bool:
        """Show a picture, UINT8 [H, W, 3] RGB; return False once the user pressed Escape or Q, or closed the window."""
        cv2.imshow(self._title, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1) & 0xFF
        return key not in (_ESCAPE_KEY, ord("q")) and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
