"""The whole frame of the demo, composed."""

from __future__ import annotations

import numpy as np
import pytest

from ssd_triton.config import Config
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.driving.drawing.frame import FrameComposer, frame_size_px
from ssd_triton.driving.drawing.state_colours import STATE_COLOURS
from tests.driving.situations import STATUS, decided, thing
from tests.media.pictures import GREY, grey_image, of_colour, one


def scene_of(config: Config, size_px: tuple[int, int]) -> FrameComposer:
    return FrameComposer(Camera.from_fov(size_px, 60, 1.3), config.braking, config.demo.view_range_m)


SIZES_PX = [(640, 360), (1280, 720), (1242, 375), (960, 540), (333, 111), (64, 48)]


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_composed_frame(config: Config, size_px: tuple[int, int]) -> None:
    width, height = size_px
    box = (width * 0.45, height * 0.5, width * 0.55, height * 0.8)
    obstacle, image = thing(box_xyxy=box), grey_image(width, height)
    decision = decided(State.BRAKE, obstacle, obstacle=obstacle)
    frame = scene_of(config, size_px).compose(image, one(box), decision, STATUS)
    assert (frame.shape[1], frame.shape[0]) == frame_size_px(size_px)
    assert frame.dtype == np.uint8
    red = of_colour(frame, STATE_COLOURS[State.BRAKE])
    # In the camera's image and in the panel.
    assert red[:, :width].any()
    assert red[:, width:].any() == (height > 100)
    assert (image == GREY).all()


@pytest.mark.parametrize("size_px", SIZES_PX)
def test_a_frame_without_data_is_dimmed_and_says_so(config: Config, size_px: tuple[int, int]) -> None:
    width, height = size_px
    scene, image = scene_of(config, size_px), grey_image(width, height)
    frame = scene.compose(image, None, decided(State.NO_DATA), STATUS)
    assert of_colour(frame, STATE_COLOURS[State.NO_DATA])[3, 3]
    if width >= 640:
        assert (frame[height // 4, width // 2] < GREY / 2).all()
        # The words in the middle.
        assert (frame[height // 2 - 8 : height // 2 + 8, :width] > 200).any()
