"""Starting a real Triton server on this machine: native where there is one, from a wheel otherwise."""

from ssd_triton.serving.server.process import EmbeddedServer
from ssd_triton.serving.server.supervisor import Supervisor

__all__ = ["EmbeddedServer", "Supervisor"]
