"""What the report shows beside the headline: other metrics, the mean over folds, where each model comes from."""

from typing import Any

import pytest

from eval.report import lineage, page, tables
from tests.test_eval_report import built, metric, new_entry, rendered, run_of, typed, zero_shot


def entries() -> dict[str, Any]:
    shot = {**zero_shot(), "mauc": {"ensemble": metric(0.9)}, "d_prime": {"ensemble": metric(1.812, 0.0)}}
    way = {"R@1": metric(0.1), "R@5": metric(0.3), "R@10": metric(0.4), "MedR": metric(12.5, None)}
    captioned = {**new_entry(), "guidance": {"tags": {"cider_d": metric(0.6, None), "spice": metric(0.123, None)}}}
    folds = {"top5": metric(0.95), "over_folds": {"value": 0.88, "sd": 0.034, "n": 5}}
    return run_of(
        zero_shot__esc50={**shot, "top5": {"ensemble": metric(0.97)}}, finetune__esc50=new_entry(**folds),
        retrieval__clotho={**new_entry(), "text_to_audio": way}, captioning__clotho=captioned,
    )  # fmt: skip


def test_other_metrics_are_shown_everywhere_but_on_the_terminal() -> None:
    runs = {"a": entries(), "b": run_of(zero_shot__esc50=zero_shot())}
    table = built(runs)
    assert [row[0] + " | " + row[2] for row in tables.more(table)[1:]] == [
        "zero-shot esc50: top-5 accuracy | 97.0 [92.0, 102.0]", "zero-shot esc50: mAUC | 90.0 [85.0, 95.0]",
        "zero-shot esc50: d' | 1.812 [1.762, 1.862]", "finetune esc50: top-5 accuracy | 95.0 [90.0, 100.0]",
        "finetune esc50: mean over folds | 88.0 ± 3.4, 5 folds",
        "retrieval clotho: text to audio R@5 | 30.0 [25.0, 35.0]",
        "retrieval clotho: text to audio MedR | 12.5 [12.4, 12.6]",
        "captioning clotho: spice, tags | 0.123 [0.073, 0.173]",
    ]  # fmt: skip
    assert {row[3] for row in tables.more(table)[1:]} == {"-"}, "b has none of them"
    for text in (page.render(typed(runs), table, []), tables.markdown(table, typed(runs))):
        assert "More metrics" in text and "88.0 ± 3.4, 5 folds" in text and tables.MORE.split(",")[0] in text
    latex = tables.latex(table, typed(runs))
    assert r"88.0 $\pm$ 3.4, 5 folds" in latex and latex.count(r"\begin{tabular}") == 2
    assert "MedR" not in tables.text(table, typed(runs)) and "headline" not in tables.text(table, typed(runs))


def test_without_other_metrics_there_is_no_section_of_them() -> None:
    runs = {"a": run_of(zero_shot__esc50=zero_shot())}
    table = built(runs)
    for text in (
        page.render(typed(runs), table, []),
        tables.markdown(table, typed(runs)),
        tables.latex(table, typed(runs)),
    ):
        assert "More metrics" not in text


CONVERTED = {"stage": "train convert", "layout": "efficientat", "weights": "mn04_as.pt", "weights_sha256": "ab"}
GENERATION = {"out": "s3://b/guided", "captioner": "build/writer", "captioner_revision": "c" * 64, "guidance": ["tags"]}
PRETRAINED = {
    "stage": "train pretrain", "data": ["s3://b/guided"], "num_clips": 40, "init": "s3://b/stage1/",
    "init_audio": "build/mn04", "generation": GENERATION, "keep_fraction": 0.5, "best_only": True,
    "overlay": {"stage": "pipeline score", "model": "build/scorer", "revision": "d" * 64},
}  # fmt: skip
SEVERAL = {
    "stage": "train pretrain", "data": ["build/one", "build/two"], "num_clips": 7, "init": "", "init_audio": "",
    "origins": [{"generation": {"out": "build/one", "captioner": "build/x"}}, {}], "keep_fraction": 1.0,
    "best_only": False, "overlay": [{"stage": "pipeline score", "model": "build/s", "revision": "e" * 64}] * 2,
}  # fmt: skip
TUNED = {"stage": "train finetune", "data": "build/esc50/metadata.csv", "init_audio": "build/mn04", "num_clips": 9}


@pytest.mark.parametrize(
    ("history", "columns"),
    [
        (CONVERTED, "train convert efficientat|mn04_as.pt|-|-|-|-|-|-"),
        (
            PRETRAINED,
            "train pretrain|guided|stage1, mn04 (audio encoder)|guided|writer (cccccccccccc)|yes|"
            "best caption of each clip by scorer (dddddddddddd), best 50 % of the clips|40",
        ),
        (SEVERAL, "train pretrain|one, two|-|one|x|no|all captions by s (eeeeeeeeeeee), best 100 % of the clips|7"),
        (TUNED, "train finetune|esc50/metadata.csv|mn04 (audio encoder)|-|-|-|-|9"),
        ({}, "-|-|-|-|-|-|-|-"),
    ],
)
def test_where_a_model_comes_from_is_shown_for_every_kind(history: dict[str, Any], columns: str) -> None:
    run = run_of(zero_shot__esc50=zero_shot())
    run["model"]["lineage"] = history
    head, row = lineage.rows(typed({"a": run}))
    assert row == ["a", "r" * 12, *columns.split("|")] and len(head) == len(row)
    assert "Where each model comes from" in rendered({"a": run})
