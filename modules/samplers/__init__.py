"""Samplers, schedules and noise. Importing the package fills the registry."""

from modules.samplers import cfgpp, dpm_solver, dpmpp, euler, schedules, timesteps, unipc

__all__ = ["cfgpp", "dpm_solver", "dpmpp", "euler", "schedules", "timesteps", "unipc"]
