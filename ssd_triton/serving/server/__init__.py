"""Starts a real Triton server on this machine: the installed one, or else the one from a wheel."""

from ssd_triton.serving.server.process import EmbeddedServer
from ssd_triton.serving.server.supervisor import Supervisor

__all__ = ["EmbeddedServer", "Supervisor"]
