"""`python -m train <stage> <config> [--field value]`."""

import sys

from pipeline.cli import Stage, main
from train import configs

STAGES = {
    "captioner": Stage("train.stages.captioner", "Captioned clips -> a tag-guided captioner.", configs.CAPTIONER),
    "convert": Stage("train.stages.convert", "Released weights -> a checkpoint of ours.", configs.CONVERT),
    "pretrain": Stage("train.stages.pretrain", "Caption shards -> a two-tower language-audio model.", configs.PRETRAIN),
    "mixture": Stage(
        "train.stages.mixture", "Caption clusters -> the shares that suit the validation clips.", configs.MIXTURE
    ),
    "doctor": Stage("train.stages.doctor", "Find out what limits pretrain, and what to change.", configs.DOCTOR),
    "finetune": Stage(
        "train.stages.finetune", "Labelled clips -> a classifier over any audio encoder.", configs.FINETUNE
    ),
    "publish": Stage(
        "train.stages.publish",
        "Two towers -> a folder for transformers and ONNX Runtime, with a model card.",
        configs.PUBLISH,
    ),
}

if __name__ == "__main__":
    sys.exit(main("train", "Caption shards -> checkpoint.", STAGES))
