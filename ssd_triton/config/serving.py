"""The server, the container that it runs in, and the clients that ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from ssd_triton.common.result_format import ResultFormat
from ssd_triton.config.section import Score, Seconds, Section

Port = Annotated[int, Field(ge=0, le=65535)]
InFlight = Annotated[int, Field(ge=1, le=1024)]
Protocol = Literal["grpc", "http"]

X264Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"]

RestrictedApi = Literal[
    "metadata", "shared-memory", "model-config", "model-repository", "statistics", "trace", "logging"
]
"""Triton's names of the APIs that can be put behind a key; health and inference stay free."""


class ServerTlsConfig(Section):
    """TLS of the gRPC endpoint. With TLS, HTTP and metrics stay on loopback, because Triton has none for them."""

    certificate: Path | None = None
    """PEM certificate of the gRPC endpoint; none: no TLS"""
    private_key: Path | None = None
    """PEM private key of the certificate"""
    client_ca: Path | None = None
    """PEM certificate authority that must have signed every client's certificate"""

    @model_validator(mode="after")
    def _complete(self) -> ServerTlsConfig:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together, got one of them")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


class ServerConfig(Section):
    """The server that ``ssd-triton serve`` and ``--serve`` start: addresses, deadlines and protection."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """address to listen on, IPv4 or IPv6; 0.0.0.0 for all of IPv4, reachable from the network"""
    grpc_port: Port = 8001
    """port of gRPC; 0 takes any free port"""
    http_port: Port = 8000
    """port of HTTP; 0 takes any free port"""
    metrics_port: Port = 8002
    """port of the Prometheus metrics; 0 takes any free port"""
    expose: bool = False
    """loading of 'ssd' and its members alone, for a server that strangers reach: no raw frames, no model control"""
    max_restarts: int = Field(default=5, ge=0, le=1000)
    """restarts within ten minutes of a server that dies, before 'serve' gives up; 0: none"""
    max_memory_mib: int = Field(default=3072, ge=0)
    """resident memory of tritonserver itself, without its models' processes, at which it is restarted; 0: never"""
    startup_timeout_s: Seconds = 120
    """longest wait until all models are loaded"""
    shutdown_timeout_s: Seconds = 15
    """time for requests in flight to finish at the end"""
    cuda_memory_pool_mib: int = Field(default=1024, ge=0)
    """memory of each GPU for tensors between models; a batch of 64 in flight takes 190 MiB"""
    model_control: bool = False
    """loading of models at run time; callers with the key can run any code; needs admin_key_file"""
    admin_key_file: Path | None = None
    """file with the key that opens restricted_apis; none: they are closed to everybody"""
    restricted_apis: tuple[RestrictedApi, ...] = ("model-repository", "trace", "logging")
    """Triton APIs that need the admin key; beyond loopback, shared-memory is one of them too"""
    tls: ServerTlsConfig = ServerTlsConfig()

    @field_validator("host")
    @classmethod
    def _without_brackets(cls, host: str) -> str:
        return host[1:-1] if host.startswith("[") and host.endswith("]") else host

    @model_validator(mode="after")
    def _controlled(self) -> ServerConfig:
        if self.model_control and (self.admin_key_file is None or "model-repository" not in self.restricted_apis):
            raise ValueError(
                "model_control lets callers run code of theirs: expected an admin_key_file ('openssl rand -hex 32 > "
                "admin.key' makes one), and model-repository among restricted_apis"
            )
        return self

    @model_validator(mode="after")
    def _exposed(self) -> ServerConfig:
        if self.expose and self.model_control:
            raise ValueError("expose closes the loading of models: expected it without model_control")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> ServerConfig:
        ports = {name: getattr(self, name) for name in ("grpc_port", "http_port", "metrics_port")}
        for name, port in ports.items():
            same = [other for other in ports if port and ports[other] == port and other != name]
            if same:
                raise ValueError(f"got {port} for {name} and {same[0]}, expected different ports; 0 takes any free one")
        return self

    def for_one_run(self) -> ServerConfig:
        """The same for a server that one command starts for itself: free ports of loopback, without TLS."""
        ports = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}
        closed = {"expose": False, "model_control": False, "tls": ServerTlsConfig()}
        return self.model_copy(update={"host": "127.0.0.1", **ports, **closed})


class ContainerConfig(Section):
    """How ``ssd-triton container`` starts Triton in a container."""

    variant: str = "auto"
    """variant of the detector; auto: tensorrt_fp16 with a GPU, the key variant without"""
    engine_cache: Path = Path("reports/engine_cache")
    """folder of engines, which containers may share"""
    runtime_dir: Path = Path("reports/container")
    """working folder that belongs to one container alone"""
    builder_timeout_s: Seconds = 1800
    """longest wait for another container that builds the same engine"""


class ClientTlsConfig(Section):
    """TLS of clients: how they trust a server, and how they identify themselves."""

    enabled: bool = False
    """TLS; one of the files below turns it on too; not with --serve"""
    root_certificates: Path | None = None
    """PEM authorities that sign server certificates; none: those of gRPC, or of the system for HTTP"""
    certificate: Path | None = None
    """PEM certificate of the client, for mutual TLS"""
    private_key: Path | None = None
    """PEM private key of the client's certificate"""


class ClientConfig(Section):
    """How clients reach a server."""

    protocol: Protocol = "grpc"
    """protocol of the server's address"""
    url: str | None = None
    """host:port of a running server; none: server.host and the port of the protocol"""
    timeout_s: Seconds = 30
    """deadline of one request, retries included"""
    retry_s: Seconds = 120
    """time for which detect and coco-eval retry a request while the server is away; not with --serve"""
    in_flight: InFlight = 4
    """requests in flight at once"""
    tls: ClientTlsConfig = ClientTlsConfig()


class DetectConfig(Section):
    """Detections in images and videos: ``ssd-triton detect``."""

    output: Path = Path("reports/detect")
    """folder for the results"""
    score_thresh: Score = 0.5
    """lowest score of detections that are kept, 0 to 1"""
    format: ResultFormat = "json"
    """format of the results: a JSON list, JSON lines, CSV, a COCO data set, YOLO labels, or Parquet"""
    pictures: bool = True
    """annotated pictures and videos beside the results"""
    crops: bool = False
    """folder crops/ with a picture of each detection, by class"""
    part_images: int = Field(default=1000, ge=1, le=1_000_000)
    """images in each file of results of --manifest; a run that is killed repeats at most as many"""


class DemoConfig(Section):
    """The braking demonstration: ``ssd-triton demo``."""

    video: int | Path | None = None
    """video file, folder of images, or index of a camera; none: a rendered scenario"""
    output: Path = Path("reports/brake_demo.mp4")
    """MP4 to write; NAME.events.jsonl and NAME.timeline.png lie beside it"""
    score_thresh: Score = 0.5
    """lowest score of detections that are drawn without being tracked, 0 to 1"""
    image_folder_fps: float = Field(default=10, gt=0, le=1000)
    """frame rate of a folder of images"""
    real_time_in_flight: InFlight = 2
    """most frames in flight in real time; with more of them, each one waits longer"""
    max_age_s: Seconds = 1.0
    """age at which frames are dropped in real time, and answers are ignored"""
    min_rate_hz: float = Field(default=9, gt=0, le=1000)
    """decisions a second below which the demo calls itself DEGRADED: scenarios are judged at 10 and 20, and a tenth is
    for jitter"""
    server_deadline_s: Seconds = 30
    """time without any answer after which the run ends"""
    assumed_latency_s: float = Field(default=0.1, ge=0, le=60)
    """delay from camera to decision for a file, unless it is played in real time: then it is measured"""
    max_ego_gap_s: float = Field(default=2.0, gt=0, le=2)
    """longest gap between samples of --ego-speed-csv that is interpolated; 2 s are a log of 1 Hz without one sample"""
    view_range_m: float = Field(default=60, ge=10, le=200)
    """length of the road seen from above"""
    x264_preset: X264Preset = "ultrafast"
    """speed of the video encoder; slower presets make smaller files and take time from the detector"""


class ViewConfig(Section):
    """The live page: ``ssd-triton view``."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """address to listen on, IPv4 or IPv6; beyond loopback it takes TLS, and every browser the token"""
    port: Port = 8080
    """port of the page; 0 takes any free port"""
    certificate: Path | None = None
    """PEM certificate of the page"""
    private_key: Path | None = None
    """PEM private key of the certificate"""
    token_file: Path | None = None
    """file with the page's token, 32 or more letters, digits, - or _; none: beyond loopback, a new one each time"""
    clips: Path | None = None
    """folder of videos to choose from on the page"""
    upload_mib: int = Field(default=512, ge=1)
    """room for all uploaded clips together; the oldest make way, and all are removed at the end"""
    max_drives: int = Field(default=4, ge=1, le=64)
    """drives that run at once; all who watch one clip watch one drive"""

    @model_validator(mode="after")
    def _complete(self) -> ViewConfig:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together, got one of them")
        return self
