"""Video in and out: files, folders of images and cameras, and H.264 files with exact timestamps."""

from ssd_triton.video.source import Frame, VideoSource, open_source
from ssd_triton.video.writer import VideoWriter

__all__ = ["Frame", "VideoSource", "VideoWriter", "open_source"]
