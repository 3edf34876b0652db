"""The claim of the demo in its small form: captions guided by tags give the better model, whatever the seed."""

from pathlib import Path

import pytest

from eval import results
from tests.support.commands import run


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loop for two seeds: each has a captioner, its captions with and without tags, and a model of each."""
    d = tmp_path_factory.mktemp("seeds")
    corpus, seeds = f"{d}/corpus", "--seeds 2"
    commands = [
        f"pipeline synth tiny --num-captioned 200 --num-tagged 240 --num-evaluation 300 --out {corpus}",
        f"train captioner tiny {seeds} --optim.epochs 24 --optim.batch-size 16 --tag-dropout 0.15"
        f" --source {corpus}/captioned_segments.csv --out {d}/captioner",
    ]
    for guidance in ("tags", "none"):
        commands += [
            f"pipeline caption tiny {seeds} --actors.max 0 --guidance {guidance}"
            f" --source {corpus}/tagged_segments.csv --captioner {d}/captioner/seed{{seed}} --out {d}/{guidance}",
            f"train pretrain tiny {seeds} --data {d}/{guidance}/seed{{seed}} --init-audio {d}/captioner/seed{{seed}}"
            f" --network.text.pooling mean --network.text.hidden-dim 64 --network.joint-dim 64 --optim.lr 3e-3"
            f" --optim.epochs 16 --optim.batch-size 32 --out {d}/models/{guidance}",
            f"eval zero-shot demo {seeds} --model {d}/models/{guidance}/seed{{seed}} --task-dir {corpus}"
            f" --class-texts {corpus}/class_texts.json --out {d}/results/{guidance}",
        ]
    run([["-m", *command.split()] for command in commands])
    return d


@pytest.mark.parametrize("seed", [0, 1])
def test_guided_captions_give_the_better_model(loop: Path, seed: int) -> None:
    guided, unguided = (
        results.read(f"{loop}/results/{guidance}/seed{seed}")["results"]["zero-shot synth"]
        for guidance in ("tags", "none")
    )
    for metric in ("accuracy", "map"):
        assert guided[metric]["ensemble"]["value"] > unguided[metric]["ensemble"]["value"] > 0, metric
    assert guided["accuracy"]["ensemble"]["value"] > 2 * guided["accuracy"]["ensemble"]["chance"]
