"""What limits training here, and what to change: `python -m train doctor <config>`."""

from train.stages.doctor.stage import DoctorConfig, run

__all__ = ["DoctorConfig", "run"]
