"""The server, the container that it runs in, and the clients that ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ssd_triton.config.section import Score, Seconds, Section

Port = Annotated[int, Field(ge=0, le=65535)]

X264Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]

RestrictedApi = Literal[
    "metadata", "shared-memory", "model-config", "model-repository", "statistics", "trace", "logging"
]
"""Triton's names of what may be put behind a key; health and inference stay free."""


class ServerTlsConfig(Section):
    """PEM files of the gRPC endpoint; without a certificate it speaks plain text."""

    certificate: Path | None
    private_key: Path | None
    client_ca: Path | None

    @model_validator(mode="after")
    def _complete(self) -> ServerTlsConfig:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together, got one of them")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


class ServerConfig(Section):
    """Addresses, deadlines and protection of the embedded server; port 0 takes a free one."""

    host: str
    grpc_port: Port
    http_port: Port
    metrics_port: Port
    startup_timeout_s: Seconds
    shutdown_timeout_s: Seconds
    cuda_memory_pool_mib: Annotated[int, Field(ge=0)]
    model_control: bool
    admin_key_file: Path | None
    restricted_apis: tuple[RestrictedApi, ...]
    tls: ServerTlsConfig

    @model_validator(mode="after")
    def _controlled(self) -> ServerConfig:
        if self.model_control and (self.admin_key_file is None or "model-repository" not in self.restricted_apis):
            raise ValueError(
                "model_control lets callers run code of theirs: expected an admin_key_file ('openssl rand -hex 32 > "
                "admin.key' makes one), and model-repository among restricted_apis"
            )
        return self

    def for_one_run(self) -> ServerConfig:
        """The same for a server that one command starts for itself: on free ports of loopback, without TLS."""
        no_tls = ServerTlsConfig(certificate=None, private_key=None, client_ca=None)
        ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
        return self.model_copy(update={"host": "127.0.0.1", **ports, "model_control": False, "tls": no_tls})


class ClientTlsConfig(Section):
    """How clients trust a server, and show who they are; PEM files."""

    enabled: bool
    root_certificates: Path | None
    certificate: Path | None
    private_key: Path | None


class ContainerConfig(Section):
    """How ``tools/container_entrypoint.py`` starts; ``config.yml`` says what each key means."""

    variant: str
    engine_cache: Path
    runtime_dir: Path
    builder_timeout_s: Seconds


class ClientConfig(Section):
    """How clients reach a server."""

    protocol: Literal["grpc", "http"]
    url: str | None
    timeout_s: Seconds
    in_flight: Annotated[int, Field(ge=1, le=1024)]
    tls: ClientTlsConfig


class DetectConfig(Section):
    """Defaults of ``clients/detect.py``."""

    output: Path
    score_thresh: Score


class DemoConfig(Section):
    """Defaults of ``clients/brake_demo.py``; ``config.yml`` says what each key means.

    A number as ``video`` is the index of a camera.
    """

    video: int | Path | None
    output: Path
    score_thresh: Score
    image_folder_fps: Annotated[float, Field(gt=0, le=1000)]
    real_time_in_flight: Annotated[int, Field(ge=1, le=1024)]
    max_age_s: Seconds
    server_deadline_s: Seconds
    assumed_latency_s: Annotated[float, Field(ge=0, le=60)]
    max_ego_gap_s: Seconds
    view_range_m: Annotated[float, Field(ge=10, le=200)]
    x264_preset: X264Preset
