"""Video in and out: files, folders of images and cameras, and H.264 files with exact timestamps."""

from ssd_triton.media.video.source import Frame, VideoSource, open_source
from ssd_triton.media.video.writer import VideoWriter

__all__ = ["Frame", "VideoSource", "VideoWriter", "open_source"]
