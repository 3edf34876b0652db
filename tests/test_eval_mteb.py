"""`eval suite --mteb.tasks`: mteb's own tasks on a checkpoint, in files that mteb itself reads back."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

import eval.__main__ as eval_commands
from eval import adapters, leaderboard
from eval.leaderboard import MtebConfig
from pipeline import cli
from pipeline.errors import InputError
from tests.support import tones
from train import checkpoint

MISSING = importlib.util.find_spec("mteb") is None  # its import takes long: only the process of these tests does it
pytestmark = pytest.mark.skipif(MISSING, reason="mteb is not installed: pip install -e '.[mteb]'")
CARD = ("--mteb.name", "lab/towers", "--mteb.license", "apache-2.0", "--mteb.training-datasets", "ESC50")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tones.make(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def known(task: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task, under its name among those of mteb."""
    monkeypatch.setitem(registry(), "Tones", type(task))
    return task


def registry() -> dict[str, Any]:
    """Return the classes of mteb's tasks by their names."""
    found: dict[str, Any] = importlib.import_module("mteb.get_tasks")._TASKS_REGISTRY
    return found


def suite(model: str, out: Path, *more: str) -> int:
    words = ["suite", "tiny", "--model", model, "--out", str(out), "--mteb.tasks", *more]
    return cli.main("eval", "", eval_commands.STAGES, words)


def test_mteb_reads_back_what_the_suite_wrote(clap: str, known: Any, tmp_path: Path) -> None:
    """The layout is that of its repository of results; its number is that of its evaluator on our adapter."""
    import mteb
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    assert suite(clap, tmp_path, "Tones", *CARD) == 0
    revision = checkpoint.describe(clap, "--model", "clap").revision
    folder = tmp_path / "mteb" / "results" / "lab__towers" / revision
    result = TaskResult.from_disk(folder / "Tones.json")
    assert (result.task_name, result.dataset_revision, result.mteb_version) == ("Tones", "1", mteb.__version__)
    expected = mteb.evaluate(adapters.MtebEncoder(clap), known, cache=None).task_results[0]
    assert result.get_score() == pytest.approx(expected.get_score(), abs=1e-6)
    assert result.scores["test"][0]["hf_subset"] == "default"
    meta = ModelMeta.model_validate_json_resolved((folder / "model_meta.json").read_text())
    network = checkpoint.load(clap).model
    assert (meta.name, meta.revision, meta.license) == ("lab/towers", revision, "apache-2.0")
    assert meta.n_parameters == sum(each.numel() for each in network.parameters())
    assert meta.embed_dim == len(network.embed_texts(["a dog"])[0])
    assert (set(meta.modalities), meta.training_datasets) == ({"audio", "text"}, {"ESC50"})
    loaded = mteb.ResultCache(tmp_path / "mteb").load_results(tasks=[known])
    assert [(model.model_name, model.model_revision) for model in loaded.model_results] == [("lab/towers", revision)]


def test_a_task_that_has_its_file_is_not_run_again(clap: str, known: Any, tmp_path: Path) -> None:
    assert suite(clap, tmp_path, "Tones") == 0
    (file,) = (tmp_path / "mteb").rglob("Tones.json")
    before = file.read_bytes()
    assert suite(clap, tmp_path, "Tones") == 0
    assert file.read_bytes() == before, "its evaluation_time would be another"
    assert file.parent.parent.name == f"blat-ray__{Path(clap).name}"


def test_what_is_not_given_is_unknown(clap: str) -> None:
    meta = adapters.MtebEncoder(clap).mteb_model_meta
    assert (meta.license, meta.training_datasets, meta.open_weights, meta.reference) == (None, None, None, None)


def test_a_task_that_fails_is_named_and_the_others_go_on(
    clap: str, known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Unreachable(type(known)):  # type: ignore[misc]
        metadata = known.metadata.model_copy(update={"name": "Unreachable"})

        def load_data(self, *_args: object, **_options: object) -> None:
            raise ConnectionError("the hub is out of reach")

    monkeypatch.setitem(registry(), "Unreachable", Unreachable)
    assert suite(clap, tmp_path, "Unreachable", "Tones") == 1
    message = capsys.readouterr().err
    assert "mteb Unreachable" in message and "the hub is out of reach" in message
    assert [file.name for file in (tmp_path / "mteb").rglob("Tones.json")] == ["Tones.json"]


def test_tasks_and_benchmarks_are_those_of_mteb(tmp_path: Path) -> None:
    found = leaderboard.check(MtebConfig(tasks=("ESC50", "MAEB(v1, audio-only)")), str(tmp_path))
    assert {"ESC50", "BeijingOpera", "GTZANGenre"} <= set(found)
    assert leaderboard.lacking(found["ESC50"], "tagger") == ""
    (texts,) = leaderboard.check(MtebConfig(tasks=("ESC50_Zeroshot",)), str(tmp_path)).values()
    assert [leaderboard.lacking(texts, kind) for kind in ("clap", "tagger")] == ["", "text"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ESC51",), "--mteb.tasks 'ESC51': mteb"),
        (("ESC50", "--mteb.license", "free beer"), "--mteb.license 'free beer'"),
        (("ESC50", "--mteb.name", "towers"), "--mteb.name 'towers'"),
    ],
)
def test_what_mteb_does_not_take_names_the_flag(
    words: tuple[str, ...], message: str, clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite(clap, tmp_path / "out", *words) == 2
    assert message in capsys.readouterr().err


def test_a_uri_is_refused(s3: str) -> None:
    with pytest.raises(InputError, match=r"--out.*mteb writes to disk alone"):
        leaderboard.check(MtebConfig(tasks=("ESC50",)), f"{s3}/results")


def test_a_captioner_has_nothing_that_mteb_takes(captioner: str, tmp_path: Path, capsys: Any) -> None:
    assert suite(captioner, tmp_path, "ESC50") == 2
    assert "mteb ESC50: mteb embeds audio, and this is a captioner" in capsys.readouterr().err
