"""`python -m pipeline <stage> <config> [--field value]`."""

import sys

from pipeline import configs
from pipeline.cli import Stage, main

STAGES = {
    "synth": Stage("pipeline.stages.synth", "Write the procedural corpus.", configs.SYNTH),
    "inspect": Stage("pipeline.stages.inspect", "Show the kind, columns and clips of a source.", configs.INSPECT),
    "fingerprint": Stage("pipeline.stages.fingerprint", "Take fingerprints of evaluation audio.", configs.FINGERPRINT),
    "plan": Stage("pipeline.stages.plan", "Fix which clip goes into which shard.", configs.PLAN),
    "doctor": Stage("pipeline.stages.doctor", "Find out what limits caption, and what to change.", configs.DOCTOR),
    "caption": Stage("pipeline.stages.caption", "Tagged audio -> caption shards.", configs.CAPTION),
    "assign": Stage("pipeline.stages.assign", "Unlabelled clips and texts -> captions for the clips.", configs.ASSIGN),
    "retry": Stage("pipeline.stages.retry", "Caption failed clips again, into new shards.", configs.RETRY),
    "verify": Stage("pipeline.stages.verify", "Check every byte of a dataset.", configs.VERIFY),
    "score": Stage("pipeline.stages.score", "Score captions with a language-audio model.", configs.SCORE),
    "audit": Stage("pipeline.stages.audit", "Check captions against their clips' tags.", configs.AUDIT),
    "recaption": Stage("pipeline.stages.recaption", "Write new captions for a dataset.", configs.RECAPTION),
    "choose": Stage("pipeline.stages.choose", "Choose the best captions of several overlays.", configs.CHOOSE),
    "import-captions": Stage(
        "pipeline.stages.import_captions", "Add published captions to a dataset.", configs.IMPORT_CAPTIONS
    ),
    "index": Stage("pipeline.stages.index", "List the captioned clips of any tars, to train on them.", configs.INDEX),
    "export": Stage("pipeline.stages.export", "Write chosen clips and captions as plain tars.", configs.EXPORT),
    "listen": Stage("pipeline.stages.listen", "Write a page of clips to hear beside their captions.", configs.LISTEN),
}
FORMER_NAMES = {"probe": "doctor"}

if __name__ == "__main__":
    sys.exit(main("pipeline", "Tagged audio -> caption shards.", STAGES, former_names=FORMER_NAMES))
