"""`python -m eval <stage> <config> [--field value]`."""

import sys

from eval import configs
from pipeline.cli import Stage, main

STAGES = {
    "zero-shot": Stage("eval.stages.zero_shot", "Classify and tag by similarity to class names.", configs.ZERO_SHOT),
    "passport": Stage(
        "eval.stages.passport", "Zero-shot by several protocols, and what each difference is worth.", configs.PASSPORT
    ),
    "retrieval": Stage("eval.stages.retrieval", "Find clips by captions and captions by clips.", configs.RETRIEVAL),
    "compositional": Stage(
        "eval.stages.compositional",
        "Right captions against wrong ones: order, presence, negation.",
        configs.COMPOSITIONAL,
    ),
    "grounding": Stage(
        "eval.stages.grounding", "When what is named sounds: frame scores against strong labels.", configs.GROUNDING
    ),
    "captioning": Stage(
        "eval.stages.captioning", "Caption clips and score it; the ablation of tags.", configs.CAPTIONING
    ),
    "linear-probe": Stage(
        "eval.stages.linear_probe", "A linear layer over frozen embeddings, by official folds.", configs.LINEAR_PROBE
    ),
    "finetune": Stage(
        "eval.stages.finetune", "The encoder fine-tuned on each official fold, and tested.", configs.FINETUNE
    ),
    "suite": Stage(
        "eval.stages.suite", "Every task that is there, every stage that fits, and the report.", configs.SUITE
    ),
    "report": Stage(
        "eval.stages.report",
        "Show several models side by side.",
        configs.REPORT,
        no_seeds="a report shows all runs of a recipe: give --results the folder that holds seed0, seed1, ...",
    ),
    "index-search": Stage(
        "eval.stages.index_search",
        "Index clips for search by text and by sound.",
        configs.INDEX_SEARCH,
        no_seeds="an index is of one model: name it in --model",
    ),
    "search": Stage(
        "eval.stages.search",
        "Find clips of an index by words, by a sound, or both.",
        configs.SEARCH,
        no_seeds="a search is in one index: name it in --index",
    ),
    "search-precision": Stage(
        "eval.stages.search_precision",
        "How many of the first results of a class's texts have its tag.",
        configs.SEARCH_PRECISION,
        no_seeds="an index is of one model: name it in --index",
    ),
    "serve": Stage(
        "eval.stages.serve",
        "Serve the search page and its API.",
        configs.SERVE,
        no_seeds="a server has one index: name it in --index",
    ),
}

if __name__ == "__main__":
    sys.exit(main("eval", "Checkpoint -> results.", STAGES))
