"""`python -m eval <stage> <config> [--field value]`."""

import sys

from eval import configs
from pipeline.cli import Stage, main

STAGES = {
    "zero-shot": Stage("eval.zero_shot", "Classify and tag by similarity to class names.", configs.ZERO_SHOT),
    "retrieval": Stage("eval.retrieval", "Find clips by captions and captions by clips.", configs.RETRIEVAL),
    "captioning": Stage("eval.captioning", "Caption clips and score it; the ablation of tags.", configs.CAPTIONING),
    "report": Stage("eval.report", "Show several models side by side.", configs.REPORT),
}

if __name__ == "__main__":
    sys.exit(main("eval", "Checkpoint -> results.json.", STAGES))
