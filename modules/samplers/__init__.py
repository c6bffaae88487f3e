"""Samplers, schedules and noise. Importing the package fills the registry."""

from modules.samplers import samplers, schedules, unipc

__all__ = ["samplers", "schedules", "unipc"]
