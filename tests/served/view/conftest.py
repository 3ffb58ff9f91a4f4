"""A page that runs in front of a real server, and a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from ssd_triton.media.video import VideoWriter
from ssd_triton.serving.server import EmbeddedServer
from tests.served.pages import CLIP, FPS, FRAMES, Running, chromium, running_page


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, photograph_rgb: np.ndarray) -> Path:
    """A folder with a clip that pans over the photograph."""
    folder = tmp_path_factory.mktemp("clips")
    with VideoWriter(folder / CLIP, (480, 360), FPS) as writer:
        for index in range(FRAMES):
            writer.write(np.ascontiguousarray(photograph_rgb[index : index + 360, 16:496]), index / FPS)
    return folder


@pytest.fixture(scope="module")
def running(light_server: EmbeddedServer, clips: Path) -> Iterator[Running]:
    options = ("--url", light_server.url("grpc"), "--metrics-url", light_server.metrics_url, "--clips", clips)
    with running_page(*options) as (address, log):
        yield Running(address, log)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    with chromium(playwright) as opened:
        yield opened
