"""Several runs of one recipe: read from subfolders, averaged, and shown with their number in every table of a report."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval import metrics
from eval.report import page, tables
from eval.results import compare, recipe, scoring
from eval.stages import report
from eval.stages.report import ReportConfig
from pipeline.errors import InputError
from pipeline.sources.clip import Clip
from tests.support.html_page import Page
from tests.test_eval_report import built, metric, new_entry, run_of, typed, write, zero_shot

KEYS = np.array([f"clip{i:03d}" for i in range(60)])


def write_recipe(folder: Path, rates: list[float], seed: int = 0, **changes: Any) -> str:
    """Write runs seed0, seed1, ... whose clips succeed at these rates, with outcomes of accuracy."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i, rate in enumerate(rates):
        hits = (rng.random(60) < rate).astype(float)
        share = round(float(hits.mean()), 6)
        found = {**zero_shot(), "accuracy": {"{}": metric(share), "ensemble": metric(share)}, **changes}
        run = run_of(zero_shot__esc50=found)
        run["model"]["revision"] = f"{i}" * 64
        write(folder / f"seed{i}", run, zero_shot__esc50={"keys": KEYS, "accuracy": hits})
    return str(folder)


def read(folder: str) -> recipe.Recipe:
    return recipe.read(folder, "--results")


def merged(*runs: dict[str, Any]) -> dict[str, Any]:
    records = {f"seed{i}": run for i, run in enumerate(runs)}
    found = recipe.merge(recipe.Recipe(folders=dict.fromkeys(records, "/nowhere"), records=records))  # type: ignore[arg-type]
    return dict(found)


def test_means_and_deviations_by_hand() -> None:
    entries = [
        {
            **new_entry(), "accuracy": {"value": value, "interval95": [value - width, value + width], "chance": 0.5},
            "over_folds": {"value": value, "sd": width, "n": 5}, "per_fold": {"1": {"value": value}},
            "per_class": {"dog": {"n": 2, "accuracy": value, "ap": None}}, "confusion": [[2, 0], [i, 1]],
        }
        for i, (value, width) in enumerate([(0.7, 0.1), (0.8, 0.2), (0.9, 0.3)])
    ]  # fmt: skip
    found = merged(*(run_of(linear_probe__esc50=entry) for entry in entries))["results"]["linear-probe esc50"]
    assert found["accuracy"] == {
        "value": 0.8, "interval95": [0.6, 1.0], "chance": 0.5, "runs": [0.7, 0.8, 0.9], "sd_runs": 0.1,
    }  # fmt: skip
    assert found["over_folds"]["value"] == 0.8 and found["over_folds"]["sd"] == 0.2 and found["over_folds"]["n"] == 5
    assert found["per_fold"]["1"]["value"] == 0.8 and found["per_class"]["dog"] == {"n": 2, "accuracy": 0.8, "ap": None}
    assert found["confusion"] == [[6, 0], [3, 3]] and found["config"] == {"task": "<esc50>"}


@pytest.mark.parametrize(
    ("overlaps", "together"),
    [
        ([{"model": 0}, {"model": 2}], {"model": 2}),
        ([{"model": 0}, {"model": None}], {"model": None}),
        ([{"model": 1}, {"model": 0, "captioner": 3}], {"model": 1, "captioner": 3}),
    ],
)
def test_the_worst_overlap_of_any_run_is_that_of_the_recipe(
    overlaps: list[Any], together: dict[str, int | None]
) -> None:
    found = merged(*(run_of(linear_probe__esc50=new_entry(overlap=overlap)) for overlap in overlaps))
    assert found["results"]["linear-probe esc50"]["overlap"] == together


def test_one_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = run_of(zero_shot__esc50=zero_shot())
    for folder in (tmp_path / "alone", tmp_path / "recipe" / "seed0"):
        folder.parent.mkdir(exist_ok=True)
        write(folder, run)
    assert recipe.merge(read(str(tmp_path / "alone"))) == recipe.merge(read(str(tmp_path / "recipe"))) == run


def test_the_interval_is_of_the_mean_over_runs_on_the_same_clips(tmp_path: Path) -> None:
    found = read(write_recipe(tmp_path / "guided", [0.6, 0.7, 0.9]))
    ensemble = recipe.merge(found)["results"]["zero-shot esc50"]["accuracy"]
    hits = np.stack(
        [np.load(Path(folder) / "outcomes" / "zero-shot-esc50.npz")["accuracy"] for folder in found.folders.values()]
    )
    low, high = metrics.bootstrap(lambda rows: float(hits[:, rows].mean()), 60)
    assert ensemble["ensemble"]["interval95"] == pytest.approx([low, high], abs=1e-6)
    assert high - low < 0.19, "three runs on the same clips know more than one"
    assert ensemble["{}"]["interval95"] == pytest.approx(
        [ensemble["{}"]["value"] - 0.05, ensemble["{}"]["value"] + 0.05]
    )


def test_outcomes_that_are_not_of_the_number_give_no_interval(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "guided", [0.6, 0.7], accuracy={"ensemble": metric(0.5)})
    found = recipe.merge(read(folder))["results"]["zero-shot esc50"]["accuracy"]["ensemble"]
    assert found["interval95"] == [0.45, 0.55]


@pytest.mark.parametrize(
    "changes",
    [{"ids_sha256": "c" * 64}, {"prompts": ["a {}"]}, {"folds": ["2"]}, {"fold_rule": "test"}, {"classes": ["x"]}],
)
def test_runs_of_other_clips_or_another_protocol_are_one_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tmp_path / "guided"
    write_recipe(folder, [0.5, 0.5])
    write(folder / "seed2", run_of(zero_shot__esc50={**zero_shot(), **changes}))
    (field,) = changes
    wanted = rf"--results '{folder}': in 'zero-shot esc50' its runs seed0 and seed2 have different {field}; evaluate"
    with pytest.raises(InputError, match=wanted):
        read(str(folder))


def test_runs_of_other_networks_are_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "guided"
    folder.mkdir()
    for name, width in (("seed0", 32), ("seed1", 64)):
        run = run_of(zero_shot__esc50=zero_shot())
        run["model"]["network"] = {"width": width}
        write(folder / name, run)
    with pytest.raises(InputError, match="seed0 and seed1 are of different networks"):
        read(str(folder))


def test_a_folder_without_results_inside_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "guided" / "seed0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"--results .*guided': holds no results"):
        read(str(tmp_path / "guided"))


def test_a_run_that_lacks_an_evaluation_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "guided"
    write_recipe(folder, [0.5, 0.6])
    write(folder / "seed2", run_of(linear_probe__esc50=new_entry()))
    report.run(ReportConfig(results=(str(folder),), out=str(tmp_path / "report")))
    shown = capsys.readouterr().out
    assert ", 2 of 3 runs" in shown and "90.0 [85.0, 95.0], 1 of 3 runs" in shown
    assert (
        "guided (3 runs): the runs are seed0, seed1, seed2; seed2 without zero-shot esc50; "
        "seed0, seed1 without linear-probe esc50." in shown
    )


def test_a_report_of_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = (
        write_recipe(tmp_path / "unguided", [0.3, 0.35, 0.3]),
        write_recipe(tmp_path / "guided", [0.9, 0.95, 0.9], seed=1),
        write_recipe(tmp_path / "same", [0.35, 0.3], seed=2),
        write_recipe(tmp_path / "single", [0.95], seed=3),
    )
    report.run(ReportConfig(results=folders, out=str(tmp_path / "report")))
    written = json.loads((tmp_path / "report" / "results.json").read_text())
    assert list(written["guided"]["runs"]) == ["seed0", "seed1", "seed2"] and "runs" not in written["single"]
    verdicts = {
        name: written[name]["differences"]["zero-shot esc50"]["accuracy"] for name in ("guided", "same", "single")
    }
    assert [found["differs"] for found in verdicts.values()] == ["yes", "no", compare.ONE_RUN]
    assert [found["runs"] for found in verdicts.values()] == [[3, 3], [3, 2], [3, 1]]
    low, high = verdicts["guided"]["interval95_runs"]
    assert 0 < low < verdicts["guided"]["value"] < high and "interval95_runs" not in verdicts["single"]
    sentences = (
        "guided (3 runs) is above unguided (3 runs), over runs and clips, in zero-shot esc50 accuracy.",
        "No difference between same (2 runs) and unguided (3 runs) is shown in zero-shot esc50 accuracy.",
        "Whether single (1 run) differs from unguided (3 runs) is not known in zero-shot esc50 accuracy: "
        "one of them has one run, and another seed was not tried.",
    )
    texts = {name: (tmp_path / "report" / name).read_text() for name in ("report.html", "report.md", "report.tex")}
    texts["terminal"] = capsys.readouterr().out
    accuracy = written["guided"]["results"]["zero-shot esc50"]["accuracy"]["ensemble"]
    cell = f"{100 * accuracy['value']:.1f} ± {100 * accuracy['sd_runs']:.1f}"
    assert (
        cell in texts["terminal"] and cell in texts["report.md"] and cell.replace("±", r"$\pm$") in texts["report.tex"]
    )
    for name in ("report.html", "report.md", "terminal"):
        assert all(sentence in texts[name].replace("\\", "") for sentence in sentences), name
    for name, text in texts.items():
        assert "guided (3 runs)" in text and "single (1 run)" in text, name
    shown = Page(texts["report.html"])
    assert len(shown.of_class("dot")) == 8, "a dot for each run of the three recipes with several"
    assert "guided (3 runs), seed2" in shown.texts, "where each run comes from"


def test_the_order_of_the_runs_changes_no_number(tmp_path: Path) -> None:
    rates = [0.6, 0.9, 0.7]
    first = read(write_recipe(tmp_path / "guided", rates))
    turned = recipe.Recipe(
        folders=dict(reversed(first.folders.items())), records=dict(reversed(first.records.items()))
    )  # fmt: skip
    one, two = (recipe.merge(found)["results"]["zero-shot esc50"]["accuracy"]["ensemble"] for found in (first, turned))
    assert one["value"] == two["value"] and one["sd_runs"] == two["sd_runs"] and one["runs"] == two["runs"][::-1]
    assert one["interval95"] == pytest.approx(two["interval95"], abs=1e-6)


def test_a_deviation_over_runs_stands_beside_that_of_a_fold() -> None:
    folds = [{**new_entry(), "over_folds": {"value": value, "sd": 0.03, "n": 5}} for value in (0.88, 0.9)]
    runs = {"a": merged(*(run_of(finetune__esc50=entry) for entry in folds)), "b": run_of(finetune__esc50=folds[0])}
    assert tables.more(built(runs))[1][2:] == ["89.0 ± 1.4; ± 3.0, 5 folds", "88.0 ± 3.0, 5 folds"]
    Page(page.render(typed(runs), built(runs), []))


def test_one_model_evaluated_twice_is_no_recipe(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "guided", [0.6, 0.7])
    file = tmp_path / "guided" / "seed1" / "results.json"
    held = json.loads(file.read_text())
    held["model"]["revision"] = "0" * 64
    file.write_text(json.dumps(held))
    with pytest.raises(InputError, match=r"seed0 and seed1 are one model.*for each seed"):
        read(folder)


def test_runs_with_other_settings_are_refused_and_other_seeds_are_not(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "guided", [0.6, 0.7])

    def configure(*configs: dict[str, Any]) -> None:
        for number, config in enumerate(configs):
            file = tmp_path / "guided" / f"seed{number}" / "results.json"
            held = json.loads(file.read_text())
            held["results"]["zero-shot esc50"]["config"] = config
            file.write_text(json.dumps(held))

    configure({"recipe": {"optim": {"seed": 0}}}, {"recipe": {"optim": {"seed": 1}}})
    assert list(read(folder).records) == ["seed0", "seed1"]
    configure({"transfer_over": "classes"}, {"transfer_over": "tags"})
    with pytest.raises(InputError, match="have different transfer_over"):
        read(folder)


def test_a_stray_evaluation_beside_the_runs_is_named_and_a_report_is_no_run(tmp_path: Path) -> None:
    folder = write_recipe(tmp_path / "guided", [0.6, 0.7])
    report.run(ReportConfig(results=(folder,), out=f"{folder}/report"))
    assert list(read(folder).records) == ["seed0", "seed1"]
    (tmp_path / "guided" / "results.json").write_text(json.dumps(run_of(zero_shot__esc50=zero_shot())))
    with pytest.raises(InputError, match=r"holds results and runs with results .seed0, seed1."):
        read(folder)


def test_a_task_with_one_label_and_several_judges_accuracy_and_map(tmp_path: Path) -> None:
    """Accuracy is of the clips with one label; those with two count in mAP alone."""
    rng, folders = np.random.default_rng(0), {}
    truth = np.eye(3, dtype=bool)[np.arange(60) % 3]
    truth[40:] |= np.roll(truth[40:], 1, axis=1)
    clips = [Clip(key=f"clip{i:03d}", uri="a.wav", source_id=str(i)) for i in range(60)]
    for name, noise in (("poor", 2.0), ("good", 0.4)):
        folders[name] = [str(tmp_path / f"{name}{run}") for run in range(2)]
        for folder in folders[name]:
            scores = truth + rng.normal(0, noise, truth.shape)
            held = scoring.outcomes(clips, scores, truth, scoring.one_label(truth))
            hits = (scores[:40].argmax(axis=1) == truth[:40].argmax(axis=1)).mean()
            assert np.nanmean(held["accuracy"]) == pytest.approx(hits)
            write(Path(folder), run_of(zero_shot__esc50=zero_shot()), zero_shot__esc50=held)
    found = compare.recipes(folders["poor"], folders["good"], "zero-shot esc50")
    assert {title: (each["n"], each["differs"]) for title, each in found.items()} == {
        "accuracy": (40, "yes"),
        "mAP": (60, "yes"),
    }
