"""Scenarios as video files with their ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_triton.common.detections import Detections
from ssd_triton.common.files import relative_to_cwd
from ssd_triton.common.progress import progress
from ssd_triton.config import Config
from ssd_triton.driving.braking.ego import EgoMotion
from ssd_triton.driving.braking.pipeline import BrakingPipeline
from ssd_triton.driving.braking.state import State
from ssd_triton.driving.camera import Camera
from ssd_triton.media.video.writer import VideoWriter
from ssd_triton.simulation.rendering.renderer import Renderer, check_camera, find_weather
from ssd_triton.simulation.run import Run, judge
from ssd_triton.simulation.scenario import Scenario
from ssd_triton.simulation.simulate import Controller, simulate
from ssd_triton.simulation.truth_files import CocoWriter, write_ego_table, write_table
from ssd_triton.simulation.visible_targets import visible_targets

DEFAULT_SIZE_PX = (1280, 720)
DEFAULT_FPS = 20.0
DEFAULT_LATENCY_S = 0.1
_LEAST_NOISE_PX = 0.25
"""Least noise that tracking assumes, since its filters divide by it."""


@dataclass(frozen=True)
class Clip:
    """A clip and the files beside it.

    Attributes:
        path: The video.
        table: CSV file with a row for every frame and target.
        ego_table: CSV file of the ego's speed and yaw rate.
        annotations: COCO file; None when none was requested.
        run: The simulated drive in the video.
    """

    path: Path
    table: Path
    ego_table: Path
    annotations: Path | None
    run: Run

    def __str__(self) -> str:
        """A line for each file, and the result of the drive."""
        lines = [
            f"video        {relative_to_cwd(self.path)}",
            f"ground truth {relative_to_cwd(self.table)}",
            f"ego motion   {relative_to_cwd(self.ego_table)}",
        ]
        if self.annotations is not None:
            lines.append(f"annotations  {relative_to_cwd(self.annotations)}")
        return "\n".join([*lines, *_describe(self.run)])


def _describe(run: Run) -> list[str]:
    def seconds(value: float | None) -> str:
        return "none" if value is None else f"{value:.2f} s"

    impact = "none" if run.impact_kmh is None else f"at {run.impact_kmh:.1f} km/h"
    lines = [f"frames       {len(run.frames)}", f"contact      {impact}", f"least gap    {run.min_gap_m:.2f} m"]
    if run.states:
        lines += [f"WARN, BRAKE  {seconds(run.warn_s)}, {seconds(run.brake_s)}"]
        lines += [f"{run.scenario.criterion.rule}: {'; '.join(judge(run)) or 'passed'}"]
    return lines


def render_clip(
    scenario: Scenario,
    path: Path,
    camera: Camera,
    config: Config,
    labels: Sequence[str],
    *,
    weather: str = "sunny",
    seed: int = 0,
    fps: float = DEFAULT_FPS,
    closed_loop: bool = False,
    annotations: Path | None = None,
) -> Clip:
    """Drive a scenario and write the camera's view as a video.

    Args:
        scenario: The scenario.
        path: The video, ending in ``.mp4``; the ground truth (``.truth.csv``) and the ego's motion (``.ego.csv``) are
            written beside it.
        camera: A pinhole camera.
        config: Settings of the world and, in closed loop, of braking.
        labels: Class names by id.
        weather: A key of :data:`ssd_triton.simulation.rendering.weather.WEATHERS`.
        seed: Seed of the appearance and, in closed loop, of the detections' noise.
        fps: Frames per second.
        closed_loop: Whether the project's braking decides on noisy detections; otherwise the ego does not brake.
        annotations: File for boxes in COCO's format; None writes none.

    Raises:
        SimulationError: The camera, the weather or the frame rate cannot be drawn.
        VideoError: The video cannot be written.
    """
    check_camera(camera)
    find_weather(weather)
    controller = pipeline_controller(camera, labels, config, DEFAULT_LATENCY_S, truth=True) if closed_loop else None
    overhang_m = config.braking.front_overhang_m
    run = simulate(
        scenario,
        camera,
        config.simulation,
        labels,
        front_overhang_m=overhang_m,
        controller=controller,
        seed=seed,
        fps=fps,
        latency_s=DEFAULT_LATENCY_S,
    )
    size_px = (camera.width_px, camera.height_px)
    coco, seen = CocoWriter(labels), []
    with VideoWriter(path, size_px, fps) as writer:
        renderer = Renderer(scenario, camera, weather=weather, seed=seed)
        for index, frame in enumerate(
            progress(run.frames, total=len(run.frames), description=scenario.name, unit="frames")
        ):
            writer.write(renderer.draw(frame), index / fps)
            seen.append(visible_targets(frame.targets, frame.ego, frame.camera))
            coco.add(f"{index:06d}.jpg", size_px, seen[-1], frame)
    table, ego_table = _tables(path)
    write_table(table, run, seen, overhang_m)
    write_ego_table(ego_table, run)
    if annotations is not None:
        coco.write(annotations)
    return Clip(path, table, ego_table, annotations, run)


def _tables(path: Path) -> tuple[Path, Path]:
    """Paths of the ground truth and the ego's motion beside a video."""
    return path.with_suffix(".truth.csv"), path.with_suffix(".ego.csv")


def pipeline_controller(
    camera: Camera, labels: Sequence[str], config: Config, latency_s: float, *, truth: bool
) -> Controller:
    """The project's braking as a controller.

    Args:
        camera: As calibrated, for a level car.
        labels: Class names by id.
        config: Uses ``braking``, ``tracking`` and, with ``truth``, ``simulation``.
        latency_s: From a frame to its decision.
        truth: Whether detections are the ground truth with the noise of ``config.simulation``; tracking then assumes
            that noise. Otherwise detections come from a detector, and tracking assumes the noise of
            ``config.tracking``.
    """
    tracking = config.tracking
    if truth:
        tracking = tracking.with_box_noise(max(config.simulation.noise.box_px, _LEAST_NOISE_PX), 0.0)
    pipeline = BrakingPipeline(camera, labels, config.braking, tracking, latency_s)

    def decide(time_s: float, detections: Detections | None, ego: EgoMotion) -> State:
        state: State = pipeline.step(time_s, detections, ego).state
        return state

    return decide
