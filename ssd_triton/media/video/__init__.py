"""Video sources (files, folders of images, cameras) and H.264 output with exact timestamps."""

from ssd_triton.media.video.source import Frame, VideoSource, open_source
from ssd_triton.media.video.writer import VideoWriter

__all__ = ["Frame", "VideoSource", "VideoWriter", "open_source"]
