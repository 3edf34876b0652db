"""A history in pieces: whatever was saved when, a run goes on with the history of its state, and a save writes little."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import storage
from train.trainer.history import EpochRecord, History, HistoryPieces
from train.trainer.state import TrainingState


def grow(history: History, until: int) -> None:
    """Add steps as a run does: a loss each, a record of every fifth, an epoch of ten, a clip that cannot be read."""
    for step in range(len(history.loss) + 1, until + 1):
        history.loss.append(step / 8)
        if step % 5 == 0:
            history.steps.append({"step": step, "train/lr": 1 / step})
        if step % 10 == 0:
            history.epochs.append(EpochRecord(epoch=step // 10, step=step))
            history.skipped[f"k{step}"] = "empty"


def expected(steps: int) -> History:
    history = History()
    grow(history, steps)
    return history


def state(out: Path | str, keep: int = 1) -> TrainingState:
    model = torch.nn.Linear(1, 1)
    return TrainingState(model, torch.optim.AdamW(model.parameters()), str(out), keep)


def save(run: TrainingState, step: int) -> None:
    grow(run.history, step)
    run.step = step
    run.save()
    run.wait()


@pytest.mark.parametrize("seed", range(5))
def test_any_saves_and_restarts_give_the_history_of_the_newest_state(tmp_path: Path, seed: int) -> None:
    """A restart loses the steps after the last save; what was published of them but no state names does not count."""
    draw = np.random.default_rng(seed)
    run, saved = state(tmp_path, keep=2), 0
    for _ in range(40):
        save(run, saved := saved + int(draw.integers(1, 40)))
        if draw.random() < 0.3:
            grow(run.history, saved + int(draw.integers(1, 40)))
            run.pieces.publish(run.pieces.cut(run.history))  # killed before the state is published
            run.close()
            run = state(tmp_path, keep=2)
            run.load()
            assert run.step == saved and run.history == expected(saved)
        names = [len(json.loads(path.read_text())["loss"]) for path in pieces(tmp_path)]
        assert len(names) <= 3 * np.log2(saved) + 5, "pieces that no state needs are left"
    run.close()


def pieces(out: Path) -> list[Path]:
    return sorted((out / "training_state" / "history").glob("*.json"))


def test_an_older_state_has_its_pieces_still(tmp_path: Path) -> None:
    run = state(tmp_path, keep=3)
    for step in (16, 20, 22, 40, 41):
        save(run, step)
    run.close()
    newest = sorted((tmp_path / "training_state").glob("*.json"))
    assert [path.stem for path in newest] == ["00000022", "00000040", "00000041"]
    for path, steps in zip(reversed(newest), (41, 40, 22), strict=True):
        again = state(tmp_path)
        again.load()
        assert again.history == expected(steps)
        path.unlink()


def test_a_save_writes_what_is_new_and_little_more(tmp_path: Path) -> None:
    """A thousand saves of ten steps: a whole history each time is five million losses, in pieces two percent."""
    history, made, written = History(), HistoryPieces(str(tmp_path)), 0
    for step in range(10, 10_001, 10):
        grow(history, step)
        written += len(made.cut(history).history.loss)
    assert 10_000 <= written < 100_000 and len(made.names) <= np.log2(10_000) + 1


def test_a_state_that_holds_its_history_whole_is_gone_on_from(tmp_path: Path) -> None:
    """As states were before there were pieces."""
    run = state(tmp_path)
    save(run, 30)
    run.close()
    name = str(tmp_path / "training_state" / "00000030.json")
    storage.publish_json(name, {"step": 30, "averaged": 0, "history": expected(30).as_json()})
    storage.remove(str(tmp_path / "training_state" / "history"))
    run = state(tmp_path)
    run.load()
    assert run.history == expected(30)
    save(run, 31)
    run.close()
    again = state(tmp_path)
    again.load()
    assert again.history == expected(31) and [path.stem for path in pieces(tmp_path)] == ["00000000-00000031"]


def test_a_record_has_one_form_on_disk() -> None:
    """Flat, in the order of the fields, without what it lacks."""
    for record, form in (
        (
            EpochRecord(epoch=2, step=8, loss=0.5, metrics={"cider_d": 1.5}),
            '{"epoch": 2, "step": 8, "loss": 0.5, "cider_d": 1.5}',
        ),
        (EpochRecord(step=3, metrics={"mAP": 0.1}), '{"step": 3, "mAP": 0.1}'),
        (EpochRecord(epoch="average", step=12), '{"epoch": "average", "step": 12}'),
    ):
        assert json.dumps(record.as_json()) == form and EpochRecord.from_json(json.loads(form)) == record


def test_pieces_on_an_object_store(s3: str) -> None:
    out = f"{s3}/history"
    run = state(out)
    for step in (8, 11, 12):
        save(run, step)
    run.close()
    again = state(out)
    again.load()
    assert again.history == expected(12) and again.step == 12
    assert storage.list_names(f"{out}/training_state/history") == again.pieces.names
