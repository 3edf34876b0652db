"""A mixture of caption clusters, found with small models: `python -m train mixture <config>`."""

from train.stages.mixture.stage import MixtureConfig, run

__all__ = ["MixtureConfig", "run"]
