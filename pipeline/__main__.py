"""`python -m pipeline <stage> <config> [--field value]`."""

import sys

from pipeline import configs
from pipeline.cli import Stage, main

STAGES = {
    "synth": Stage("pipeline.synth", "Write the procedural corpus.", configs.SYNTH),
    "plan": Stage("pipeline.plan", "Fix which clip goes into which shard.", configs.PLAN),
    "caption": Stage("pipeline.caption", "Tagged audio -> caption shards.", configs.CAPTION),
    "score": Stage("pipeline.score", "Score captions with a language-audio model.", configs.SCORE),
}

if __name__ == "__main__":
    sys.exit(main("pipeline", "Tagged audio -> caption shards.", STAGES))
