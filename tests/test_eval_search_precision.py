"""`eval search-precision`: the share of the first results that have the tag, by hand and on the stage."""

import json
from pathlib import Path
from typing import Any

import pytest

import eval.__main__ as eval_room
from eval.search import Hit, Query
from eval.search.precision import measure
from eval.stages.index_search import IndexSearchConfig, run
from pipeline import cli
from tests.support import shard_set


class Ranking:
    """A searcher that answers every query with the same clips; the first `good` of them have the tag."""

    def __init__(self, good: int, clips: int) -> None:
        self.info: Any = type("Info", (), {"clips": clips})
        self.good = good
        self.hits = [
            Hit(id=f"{rank}", key="", score=1.0, captions=(), tags=("Dog",) if rank < good else (), duration_s=1.0,
                source_id="", data="", uri="", offset=0, size=1)
            for rank in range(clips)
        ]  # fmt: skip

    def tags(self) -> list[tuple[str, int]]:
        return [("Dog", self.good)]

    def search(self, query: Query) -> list[Hit]:
        return self.hits[: query.k]


@pytest.mark.parametrize(("good", "share"), [(100, 1.0), (0, 0.0), (5, 0.5), (10, 1.0), (1, 0.1)])
def test_the_share_of_the_first_ten(good: int, share: float) -> None:
    dog, mean = measure(Ranking(good, 100), {"Dog": ["a dog", "dogs"]}, 10, "embedding")  # type: ignore[arg-type]
    assert dog.value == mean.value == share and dog.chance == good / 100 and dog.clips == good and dog.queries == 2
    low, high = dog.interval95
    assert 0 <= low <= share <= high <= 1 and (low < share < high) == (share in (0.5, 0.1))


def test_fewer_clips_than_places_are_shares_of_the_places() -> None:
    dog, _ = measure(Ranking(3, 4), {"Dog": ["a dog"]}, 10, "embedding")  # type: ignore[arg-type]
    assert dog.value == 0.3


def test_the_stage_prints_each_class_and_the_mean(
    clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [
        {f"{tag}{i}": (pitch + i, [f"a {tag}"], [tag]) for i in range(3)} for tag, pitch in (("hum", 90), ("beep", 3e3))
    ]
    data, out = shard_set.write(tmp_path / "data", *parts), str(tmp_path / "index")
    run(IndexSearchConfig(out=out, model=clap, data=(data,)))
    words = ["search-precision", "--index", out, "--k", "3", "--mode", "words"]
    assert cli.main("eval", "", eval_room.STAGES, words) == 0
    *_, beep, hum, mean = capsys.readouterr().out.splitlines()
    assert beep.startswith("| beep | 1 | 3 | 50.0 | 100.0 [") and hum.startswith("| hum | 1 | 3 | 50.0 | 100.0 [")
    assert mean.startswith("| mean | 2 | 6 | 50.0 | 100.0")
    (tmp_path / "texts.json").write_text(json.dumps({"beep": ["a hum"], "hum": ["a hum", "a beep"]}))
    assert (
        cli.main("eval", "", eval_room.STAGES, [*words, "--json", "--class-texts", str(tmp_path / "texts.json")]) == 0
    )
    assert [each["value"] for each in json.loads(capsys.readouterr().out)] == [0.0, 0.5, 0.25]
    assert cli.main("eval", "", eval_room.STAGES, [*words, "--k", "0"]) == 2
