"""Contrastive pre-training on captioned clips: `python -m train pretrain <config>`."""

from train.stages.pretrain.config import PretrainConfig
from train.stages.pretrain.stage import run

__all__ = ["PretrainConfig", "run"]
