"""What was made before the modules were moved goes on: an unfinished job and training runs, a dataset, checkpoints, results.

tests/data/before_house/README.md says how the files were made. All paths in them begin with /proc/self/cwd, which is the
folder that a command runs in: so the files hold good wherever the test puts them, and none is rewritten.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import storage
from pipeline.dataset import shards
from train import checkpoint
from train.pretrained import Captioner, Embedder

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "tests" / "data" / "before_house" / "files.tar.xz"
HERE = "/proc/self/cwd"
KERNELS = {  # the same arithmetic on every x86 processor, so that bytes and losses can be compared
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
}
CALL_ALL = """
import json, runpy, sys
for sys.argv in json.loads(sys.argv[1]):
    try:
        runpy.run_module(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
"""
OPTIM = "--optim.epochs 20 --optim.batch-size 4 --optim.save-every-steps 5 --watch.no-tensorboard"
TRAINING = {
    "captioner": f"captioner tiny --source {HERE}/clips --network.clip-s 0.5 {OPTIM}",
    "pretrain": (
        f"pretrain tiny --data {HERE}/dataset --network.clip-s 0.5 {OPTIM} --init {HERE}/models/clap --captions round1 "
        "--best-only --keep-fraction 0.8 --filter.audit audit --filter.max-foreign 5"
    ),
}
FIRST_LOSSES, MARK = "training_state/history/00000000-00000015.json", 99.0
RETRIEVAL = "results/retrieval-synth.json"
UNDISTURBED = {"captioner": "models/captioner/history.json", "pretrain": "expected/pretrain_history.json"}

pytestmark = pytest.mark.skipif(not Path(HERE).exists(), reason=f"needs {HERE}, which Linux has")


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The old files."""
    return unpack(tmp_path)


def unpack(folder: Path) -> Path:
    """Unpack the old files with their times of change, by which sources and embeddings are known again."""
    with tarfile.open(FILES) as archive:
        archive.extractall(folder, filter="data")
    return folder


def call(house: Path, *commands: str) -> None:
    """Run commands in one process, in the folder of the old files."""
    words = json.dumps([command.split() for command in commands])
    environment = {**os.environ, **KERNELS, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CALL_ALL, words], cwd=house, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files below a folder: name to content and time of change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def gone_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old files after all commands that start Ray, in one process: starting one takes ten seconds."""
    house = unpack(tmp_path_factory.mktemp("gone_on"))
    shutil.copytree(house / "dataset", house / "retried")
    captioner = f"--captioner {HERE}/models/captioner --clips-per-shard 3"
    call(
        house,
        f"pipeline caption tiny --source {HERE}/clips {captioner} --out {HERE}/job",
        f"pipeline caption tiny --source {HERE}/clips_one_cut {captioner} --max-bad-fraction 0.2 --out {HERE}/dataset",
        f"pipeline score tiny --data {HERE}/dataset --model {HERE}/models/clap --name round1",
        f"pipeline audit --data {HERE}/dataset --name audit",
        f"pipeline export --data {HERE}/dataset --captions round1 --best-only --keep-fraction 0.8 --filter.audit audit "
        f"--filter.max-foreign 5 --clips-per-shard 4 --out {HERE}/exported",
        f"pipeline retry --data {HERE}/retried --reason truncated --source {HERE}/clips",
        *(f"pipeline verify --data {HERE}/{data}" for data in ("job", "dataset", "retried")),
    )
    return house


def test_an_unfinished_caption_job_goes_on(house: Path, gone_on: Path) -> None:
    """Shard 0 is committed, shard 1 is decided and its files are still under attempts/, the others are missing."""
    old, made = contents(house / "job"), contents(gone_on / "job")
    committed = {name: content for name, content in old.items() if "/" not in name or name.startswith("plan/")}
    assert "00000.tar" in committed and "00001.tar" not in committed
    assert {name: made[name] for name in committed} == committed
    decided = {Path(name).name: content for name, content in old.items() if name.startswith("attempts/00001-")}
    assert len(decided) == 3
    assert {name: made[name] for name in decided} == decided
    digests = {name: hashlib.sha256(content).hexdigest() for name, (content, _) in made.items()}
    expected = read(house / "expected" / "job_sha256.json")
    assert digests.keys() - {"README.md"} == expected.keys()
    written_now = {name for name in expected if name.startswith(("00002", "00003"))}
    assert {name: digests[name] for name in expected.keys() - written_now} == {
        name: expected[name] for name in expected.keys() - written_now
    }


def test_the_shards_that_are_written_now_differ_in_the_last_digits_of_scores_alone(house: Path, gone_on: Path) -> None:
    """The words of a beam are scored by other kernels than before."""
    before = {row["key"]: row for shard in range(4) for row in ledger(house / "dataset", shard)}
    compared = 0
    for row in [*ledger(gone_on / "job", 2), *ledger(gone_on / "job", 3)]:
        if (old := before[row["key"]])["status"] == "written":
            assert (row["text"], row["sha256"]) == (old["text"], old["sha256"])
            assert row["score"] == pytest.approx(old["score"], abs=2e-5)
            compared += 1
    assert compared == 5


def ledger(data: Path, shard: int) -> list[shards.ClipRow]:
    return storage.read_table(str(data / shards.ledger_name(shard))).to_pylist()


def test_a_finished_dataset_is_left_alone_and_exports_what_it_did(house: Path, gone_on: Path) -> None:
    """The commands that made it, and its overlays of scores and verdicts, find it complete."""
    assert contents(gone_on / "dataset") == contents(house / "dataset")
    exported: dict[str, list[str]] = {}
    for path in sorted((gone_on / "exported").glob("*.tar")):
        with tarfile.open(path) as tar:
            metas = {name: tar.extractfile(name) for name in tar.getnames() if name.endswith(".json")}
            exported |= {name.removesuffix(".json"): json.load(file)["text"] for name, file in metas.items() if file}
    assert exported == read(house / "expected" / "exported.json")


def test_a_retry_adds_a_shard_to_an_old_dataset(house: Path, gone_on: Path) -> None:
    """The clip that was cut short is whole in the source that the retry names."""
    old, made = contents(house / "dataset"), contents(gone_on / "retried")
    shards = [name for name in old if name.startswith("0000")]
    assert len(shards) == 12
    assert {name: made[name] for name in shards} == {name: old[name] for name in shards}
    (row,) = pq.read_table(gone_on / "retried" / "00004.parquet").to_pylist()
    assert (row["key"], row["status"]) == ("c107", "written")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The old files after all commands that train and evaluate, in one process, which imports torch once.

    The first loss that each unfinished run saved is replaced by a mark: a run that began anew would not have it.
    """
    house = unpack(tmp_path_factory.mktemp("trained"))
    shutil.copytree(house / "results", house / "results_again")
    (house / "results_again" / RETRIEVAL).unlink()  # else it is complete already
    for stage in TRAINING:
        piece = house / "runs" / stage / FIRST_LOSSES
        saved = read(piece)
        piece.write_text(json.dumps({**saved, "loss": [MARK, *saved["loss"][1:]]}))
    finetune = f"train finetune tiny --data {HERE}/clips --several-labels --clip-s 0.5 --optim.batch-size 4"
    finetune += " --watch.no-tensorboard"
    model = f"--model {HERE}/models/clap"
    call(
        house,
        *(f"train {words} --out {HERE}/runs/{stage}" for stage, words in TRAINING.items()),
        f"train {TRAINING['captioner']} --out {HERE}/models/captioner",
        f"{finetune} --optim.save-every-steps 5 --init-audio {HERE}/models/clap --out {HERE}/models/classifier",
        f"{finetune} --init-audio {HERE}/models/classifier --out {HERE}/finetuned",
        f"eval suite tiny {model} --task-dir {HERE}/tasks --stages zero-shot retrieval --out {HERE}/results",
        f"eval report demo --results {HERE}/results --out {HERE}/report",
        f"eval retrieval demo {model} --task-dir {HERE}/tasks/synth --out {HERE}/results_again",
    )
    return house


@pytest.mark.parametrize("stage", TRAINING)
def test_an_unfinished_training_run_goes_on_from_its_state(house: Path, trained: Path, stage: str) -> None:
    """It was killed after step 20, and ends as the run that nothing disturbed."""
    run, undisturbed = trained / "runs" / stage, read(house / UNDISTURBED[stage])["loss"]
    assert read(house / "runs" / stage / FIRST_LOSSES)["loss"] == undisturbed[:15]
    losses = read(run / "history.json")["loss"]
    assert losses[:20] == [MARK, *undisturbed[1:20]]
    assert losses[20:] == pytest.approx(undisturbed[20:], rel=1e-3)
    assert not (run / "training_state").exists()
    assert (run / "config.json").exists()


def test_finished_training_is_left_alone_and_a_classifier_starts_another(house: Path, trained: Path) -> None:
    assert contents(trained / "models") == contents(house / "models")
    losses, expected = (
        read(path)["loss"]
        for path in (trained / "finetuned" / "history.json", house / "expected" / "finetune_history.json")
    )
    assert losses == pytest.approx(expected, rel=1e-3)


def test_results_are_found_done_and_read_by_the_report(house: Path, trained: Path) -> None:
    old, now = contents(house / "results"), contents(trained / "results")
    assert {name: now[name] for name in old} == old
    held = read(house / "results" / RETRIEVAL)["results"]["retrieval synth"]
    assert read(trained / "report" / "results.json")["results"]["results"]["retrieval synth"] == held


def test_an_evaluation_that_runs_again_uses_the_embeddings_that_are_there(house: Path, trained: Path) -> None:
    old, now = contents(house / "results"), contents(trained / "results_again")
    assert now[RETRIEVAL] != old[RETRIEVAL]
    assert contents(trained / "results_again" / "embeddings") == contents(house / "results" / "embeddings")
    held, made = (
        read(folder / RETRIEVAL)["results"]["retrieval synth"]
        for folder in (house / "results", trained / "results_again")
    )
    numbers = set(held) - {"evaluated_at", "versions", "config", "source_sha256"}
    assert {name: made[name] for name in numbers} == {name: held[name] for name in numbers}


def test_checkpoints_load_and_answer_as_before(house: Path) -> None:
    expected = read(house / "expected" / "outputs.json")
    audio = [f"{house}/tasks/synth/audio/c20{i}.flac" for i in range(3)]
    captioner = Captioner.from_pretrained(f"{house}/models/captioner")
    best = [found[0] for found in captioner.caption(audio, tags=[["Whistle"], ["Hum"], ["Beep", "Siren"]])]
    assert [caption.text for caption in best] == [text for text, _ in expected["captions"]]
    assert [caption.score for caption in best] == pytest.approx([score for _, score in expected["captions"]], abs=1e-3)
    embedder = Embedder.from_pretrained(f"{house}/models/clap")
    texts = embedder.embed_text(["a person whistles", "a machine hums"])
    similarity = embedder.similarity(embedder.embed_audio(audio), texts)
    for row, wanted in zip(similarity.tolist(), expected["similarity"], strict=True):
        assert row == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("kind", ["captioner", "clap", "classifier"])
def test_a_checkpoint_that_is_saved_again_keeps_its_revision(house: Path, kind: str, tmp_path: Path) -> None:
    held = read(house / "models" / kind / "config.json")
    loaded = checkpoint.load(f"{house}/models/{kind}")
    checkpoint.save(f"{tmp_path}/saved", loaded.model, {}, [])
    saved = read(tmp_path / "saved" / "config.json")
    assert loaded.revision == held["revision"] == saved["revision"]
    assert [saved[name] for name in ("kind", "network")] == [held[name] for name in ("kind", "network")]
