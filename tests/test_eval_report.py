"""The report: stars, published numbers, escaping, significance between runs; on results written by hand."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.report import charts, headline, page, sections, tables
from eval.report.headline import Headline
from eval.results import compare, references
from eval.results.model_results import ModelResults
from eval.stages import report
from eval.stages.report import ReportConfig
from tests.support.html_page import Page

CLASSES = ["dog", "cat & <kitten>"]
WEIRD = "a_b|<c>&$d*"


def metric(value: float, chance: float | None = 0.5) -> dict[str, Any]:
    found: dict[str, Any] = {"value": value, "interval95": [value - 0.05, value + 0.05]}
    return found if chance is None else found | {"chance": chance}


def zero_shot(value: float = 0.8, overlap: dict[str, int | None] | None = None, ids: str = "aa") -> dict[str, Any]:
    """An entry as the first versions wrote it: no config, versions, per_class or date."""
    return {
        "n_single_label": 4, "accuracy": {"{}": metric(value - 0.1), "ensemble": metric(value)},
        "map": {"{}": metric(value), "ensemble": metric(value)}, "confusion": [[2, 0], [1, 1]], "classes": CLASSES,
        "prompts": ["{}"], "fold_rule": "all", "folds": [], "n": 4, "num_listed": 5, "missing": {"x": "truncated"},
        "ids_sha256": ids * 32, "overlap": {"model": 0} if overlap is None else overlap,
    }  # fmt: skip


def new_entry(**changes: Any) -> dict[str, Any]:
    return {
        "accuracy": metric(0.9), "per_fold": {"1": {"value": 0.88}}, "chosen": {"1": {"penalty": 0.01}},
        "per_class": {"dog": {"n": 2, "accuracy": 1.0, "ap": 0.9}, "cat & <kitten>": {"n": 2, "accuracy": 0.5, "ap": None}},
        "confusion": [[2, 0], [1, 1]], "classes": CLASSES, "fold_rule": "official", "folds": ["1"], "n": 4,
        "num_listed": 4, "missing": {}, "ids_sha256": "b" * 64, "overlap": {"model": 0}, "config": {"task": "<esc50>"},
        "versions": {"torch": "2.5"}, "evaluated_at": "2026-11-23T12:00:00+00:00", **changes,
    }  # fmt: skip


def run_of(**results: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("__", " ").replace("_", "-"): entry for name, entry in results.items()}
    return {"model": {"name": "m", "revision": "r" * 64, "lineage": {}}, "results": named}


def typed(runs: dict[str, Any]) -> dict[str, ModelResults]:
    return {name: ModelResults.from_json(run) for name, run in runs.items()}


def built(runs: dict[str, Any]) -> Headline:
    return headline.build(typed(runs))


def rendered(runs: dict[str, Any]) -> str:
    return page.render(typed(runs), built(runs), [])


def write(folder: Path, run: dict[str, Any], **outcomes: dict[str, np.ndarray]) -> str:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(run))
    (folder / "outcomes").mkdir()
    for name, arrays in outcomes.items():
        held = io.BytesIO()
        np.savez_compressed(held, **arrays)  # type: ignore[arg-type]
        (folder / "outcomes" / f"{name.replace('__', '-').replace('_', '-')}.npz").write_bytes(held.getvalue())
    return str(folder)


@pytest.mark.parametrize(
    ("overlap", "mark", "reason"),
    [
        ({"model": 0, "captioner": 0}, "", ""),
        ({}, "", ""),
        ({"model": 2, "captioner": 0}, "*", "the model was trained on 2 of the 4 clips."),
        ({"model": 0, "captioner": 1}, "*", "its captioner was trained on 1 of the 4 clips."),
        ({"model": 0, "model_selected_on": 3}, "*", "the model was selected on 3 of the 4 clips."),
        ({"model": 0, "init_audio": 1}, "*", "the audio encoder it started from was trained on 1 of the 4 clips."),
        ({"model": 0, "model_sounds": 1}, "*", "1 of the 4 clips sound like what the model was trained on."),
        ({"model": 0, "init": None}, "?", "what the checkpoint it started from was trained on is not known."),
        ({"model": 1, "captioner": None}, "*?", "what its captioner was trained on is not known."),
    ],
)
def test_clips_that_were_trained_on_star_the_number(overlap: dict[str, int | None], mark: str, reason: str) -> None:
    runs = {"a": run_of(zero_shot__esc50=zero_shot(overlap=overlap)), "b": run_of(zero_shot__esc50=zero_shot())}
    table = built(runs)
    assert [cell.mark for cell in table.lines[0].cells] == [mark, ""]
    assert len(table.footnotes) == bool(mark) and all(reason in note for note in table.footnotes)
    assert tables.rows(table)[1][2:] == [f"80.0 [75.0, 85.0]{mark}", "80.0 [75.0, 85.0]"]
    assert ("sup" in Page(rendered(runs)).of_class("mark")) == bool(mark)


def test_headlines_of_every_stage() -> None:
    two_ways = {way: {"R@1": metric(0.1), "R@10": metric(0.4)} for way in ("text_to_audio", "audio_to_text")}
    captioned = {**new_entry(), "guidance": {"none": {"cider_d": metric(0.6, None)}, "tags": {"cider_d": None}}}
    several = {**new_entry(), "map": metric(0.3)}
    del several["accuracy"]
    both = {**zero_shot(), "n_single_label": 2}
    run = run_of(
        zero_shot__esc50=zero_shot(), zero_shot__synth=both, linear_probe__esc50=new_entry(),
        finetune__fsd50k=several, retrieval__clotho={**new_entry(), **two_ways}, captioning__clotho=captioned,
    )  # fmt: skip
    assert [str(line.number) for line in built({"a": run}).lines] == [
        "zero-shot esc50: accuracy", "zero-shot synth: accuracy", "zero-shot synth: mAP", "linear-probe esc50: accuracy",
        "finetune fsd50k: mAP", "retrieval clotho: text to audio R@1", "retrieval clotho: text to audio R@10",
        "retrieval clotho: audio to text R@1", "retrieval clotho: audio to text R@10", "captioning clotho: CIDEr-D, none",
    ]  # fmt: skip


def test_a_run_without_a_number_has_a_dash_and_other_clips_are_reported() -> None:
    runs = {
        "a": run_of(zero_shot__esc50=zero_shot()),
        "b": run_of(
            zero_shot__esc50={**zero_shot(ids="cc"), "accuracy": {"ensemble": metric(0.8, 0.25)}},
            zero_shot__x=zero_shot(),
        ),
    }
    table = built(runs)
    assert [line.chance for line in table.lines] == ["25.0 to 50.0", "50.0"]
    assert [cell.text for cell in table.lines[1].cells] == ["-", "80.0 [75.0, 85.0]"]
    assert table.footnotes == [
        "zero-shot esc50: the models were evaluated on different clips (n 4, 4); these numbers do not compare."
    ]


def test_published_numbers_stand_apart_with_their_sources() -> None:
    runs = {"a": run_of(zero_shot__esc50=zero_shot(), zero_shot__unheard_of=zero_shot())}
    table = built(runs)
    assert [reference.model for reference in table.lines[0].published][-1] == "MS CLAP 2023" and not table.lines[
        1
    ].published
    number = 1 + table.sources.index(references.CLAP_2023)
    for text in (tables.markdown(table, typed(runs)), rendered(runs)):
        assert "93.9 MS CLAP 2023" in text and "arXiv 2309.05767" in text and tables.APART in text
    assert f"{number}. Elizalde et al. 2023" in tables.markdown(table, typed(runs))
    body = tables.latex(table, typed(runs))
    assert body.index("zero-shot esc50: accuracy & 50.0") < body.rindex(r"\midrule") < body.index("93.9 MS CLAP 2023")
    assert f"[{number}] Elizalde et al. 2023" in body
    assert "MS CLAP" not in tables.text(table, typed(runs))


def test_every_reference_belongs_to_a_headline_number() -> None:
    for reference in references.REFERENCES:
        titles = [title for title, _ in headline.TITLES[reference.evaluation.split()[0]]]
        assert reference.metric in titles and 0 < reference.value <= 100
        assert "arXiv" in reference.source or "github.com" in reference.source


def test_names_are_escaped_in_every_format() -> None:
    runs = {WEIRD: run_of(zero_shot__esc50=zero_shot(overlap={"model": 1}), linear_probe__esc50=new_entry())}
    table = built(runs)
    html = rendered(runs)
    assert "a_b|&lt;c&gt;&amp;$d*" in html and "<c>" not in html and "<kitten>" not in html and "<esc50>" not in html
    markdown = tables.markdown(table, typed(runs))
    assert r"a\_b\|&lt;c&gt;&amp;\$d\*" in markdown and r"\[75.0, 85.0\]\*" in markdown
    rows = [line.replace(r"\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {rows[0].count("|")}
    latex = tables.latex(table, typed(runs))
    assert r"a\_b\textbar{}\textless{}c\textgreater{}\&\$d*" in latex and "80.0 [75.0, 85.0]*" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    for row in latex.split(r"\toprule")[1].split(r"\bottomrule")[0].splitlines():
        assert row.replace(r"\&", "").count("&") == 2 or "multicolumn" in row or not row.endswith(r"\\")


def test_a_row_of_latex_is_no_argument_of_the_line_break_before() -> None:
    runs = {"a": run_of(zero_shot__esc50=zero_shot()), "[b": run_of(zero_shot__esc50=zero_shot())}
    runs["[b"]["differences"] = {"[x": {"unavailable": "1"}, "*y": {"unavailable": "2"}}
    latex = tables.latex(built(runs), typed(runs))
    assert r"{}[x & [b & 1 & - & - & - & - & - \\" in latex and r"{}*y & [b & 2" in latex
    assert "\n[" not in latex and "\n*" not in latex


def test_the_page_is_whole_and_loads_nothing() -> None:
    many = {**zero_shot(), "classes": [f"c{i}" for i in range(70)], "confusion": np.eye(70, k=1, dtype=int).tolist()}
    runs = {
        "a": run_of(zero_shot__esc50=zero_shot(), linear_probe__esc50=new_entry()),
        "b": run_of(zero_shot__vggsound=many),
    }
    html = rendered(runs)
    shown = Page(html)
    shown.assert_loads_nothing()
    assert "url(" not in html and "@import" not in html and "<script" not in html
    assert "prefers-color-scheme: dark" in html and len(shown.all("svg")) == 2
    assert shown.texts.count("c1") == 2, "of seventy classes the mistakes are listed"


def test_old_entries_have_no_sections_that_they_cannot_fill() -> None:
    old, new = (
        Page(rendered({"a": run_of(zero_shot__esc50=entry)})).texts
        for entry in (zero_shot(), {**zero_shot(), **new_entry(accuracy=zero_shot()["accuracy"])})
    )
    assert "By class" not in old and "By fold" not in old and "By class" in new and "By fold" in new
    assert any("1 truncated" in text for text in old) and "2026-11-23" in new


def test_classes_are_listed_worst_first() -> None:
    (table,) = sections.per_class(typed({"a": run_of(linear_probe__esc50=new_entry())}))
    assert [label for label, _, _ in table.rows] == ["cat & <kitten>", "dog"]


def test_an_empty_row_of_the_confusion_is_drawn() -> None:
    heat = charts.confusion(["x", "y"], [[0, 0], [0, 3]], 0)
    assert [cell.title for cell in heat.cells] == ["y: 3 as y"]


def test_the_same_run_twice_does_not_differ() -> None:
    hits = np.array([0, 1, 1, 0, 1.0])
    same, shares = compare.means(hits[None], hits[None]), compare.means(hits[None] / 3, hits[None] / 3)
    assert same.p == shares.p == 1 and same.value == 0 and same.interval95 == (0, 0)
    truth = np.eye(3, dtype=bool)[np.arange(12) % 3]
    scores = np.random.default_rng(0).normal(size=truth.shape)
    found = compare.mean_precision(scores[None], scores[None], truth)
    assert found.p == 1 and found.interval95 == (0, 0)


def test_a_clear_difference_is_found_and_its_sign_turns_with_the_order() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((300, 4)) < 0.3

    def by_precision(first: np.ndarray, other: np.ndarray) -> compare.Difference:
        return compare.mean_precision(first, other, truth)

    pairs = [
        ((rng.random(300) < 0.5).astype(float), (rng.random(300) < 0.9).astype(float), compare.means),
        (rng.random(300), rng.random(300) + 0.3, compare.means),
        (rng.normal(size=truth.shape), rng.normal(size=truth.shape) + 2 * truth, by_precision),
    ]  # fmt: skip
    for worse, better, test in pairs:
        worse, better = worse[None], better[None]
        up, down = test(worse, better), test(better, worse)
        assert up.p < 0.005 and up.p == pytest.approx(down.p) and up.value == pytest.approx(-down.value)
        assert 0 < up.interval95[0] < up.value < up.interval95[1] and down.interval95[1] < 0 and up.n == 300


def test_chance_differences_are_seldom_significant() -> None:
    rng = np.random.default_rng(1)
    found = [compare.means(rng.random((1, 60)), rng.random((1, 60))).p for _ in range(60)]
    assert sum(p < 0.05 for p in found) <= 8


@pytest.mark.parametrize(("gained", "lost", "p"), [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (8, 2, 112 / 1024), (3, 3, 1)])
def test_mcnemar_is_the_binomial_by_hand(gained: int, lost: int, p: float) -> None:
    assert compare.mcnemar(gained, lost) == compare.mcnemar(lost, gained) == pytest.approx(p)


def test_two_runs_are_compared_on_the_clips_they_share(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keys = np.array([f"clip{i:03d}" for i in range(90)])
    hits = (np.arange(90) % 2).astype(float)
    run = run_of(zero_shot__esc50=zero_shot(), retrieval__x={**new_entry(), "text_to_audio": {"R@10": metric(0.5)}})
    way = {"keys": keys, "text_to_audio R@10": hits}
    first = write(
        tmp_path / "first", run, zero_shot__esc50={"keys": keys[:80], "accuracy": hits[:80]}, retrieval__x=way
    )
    order = np.random.default_rng(0).permutation(80)
    better = {"keys": keys[10:][order], "accuracy": np.ones(80)}
    other = write(tmp_path / "other", run, zero_shot__esc50=better, retrieval__x=way)
    report.run(ReportConfig(results=(first, other), out=str(tmp_path / "report")))
    written = json.loads((tmp_path / "report" / "results.json").read_text())
    assert list(written) == ["first", "other"] and "differences" not in written["first"]
    found = written["other"]["differences"]
    assert found["zero-shot esc50"]["accuracy"]["n"] == 70 and found["zero-shot esc50"]["accuracy"]["value"] == 0.5
    assert found["zero-shot esc50"]["accuracy"]["p"] < 1e-9
    same = {"value": 0, "interval95": [0, 0], "p": 1, "n": 90, "runs": [1, 1], "differs": compare.ONE_RUN}
    assert found["retrieval x"] == {"text to audio R@10": same}
    for name in ("report.html", "report.md", "report.tex"):
        text = (tmp_path / "report" / name).read_text()
        assert "Differences from first" in text and "+50.0" in text and "0.001" in text
    assert "zero-shot esc50: accuracy" in capsys.readouterr().out


def test_clips_or_labels_that_differ_are_reported(tmp_path: Path) -> None:
    run = run_of(zero_shot__x=zero_shot())
    keys, truth = np.array(["a", "b"]), np.eye(2, dtype=bool)
    first = write(tmp_path / "first", run, zero_shot__x={"keys": keys, "scores": np.eye(2), "truth": truth})
    relabelled = write(tmp_path / "second", run, zero_shot__x={"keys": keys, "scores": np.eye(2), "truth": ~truth})
    elsewhere = write(tmp_path / "third", run, zero_shot__x={"keys": np.array(["c"]), "accuracy": np.ones(1)})
    assert "labels" in compare.recipes([first], [relabelled], "zero-shot x")["unavailable"]
    assert "different clips" in compare.recipes([first], [elsewhere], "zero-shot x")["unavailable"]
    assert compare.recipes([first], [first], "zero-shot y") == {}
    runs = {"a": run, "b": run | {"differences": {"zero-shot x": {"unavailable": "for a reason"}}}}
    assert "for a reason" in rendered(runs) and "for a reason" in tables.markdown(built(runs), typed(runs))
