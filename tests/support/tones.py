"""A zero-shot task of mteb's own making over three easy classes, from files on disk."""

from pathlib import Path
from typing import Any

import soundfile

from tests.support import sounds50


def make(folder: Path) -> Any:
    """Write nine clips and return the task, an `AbsTaskZeroShotClassification`."""
    import datasets
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    files = sorted((sounds50.write(folder / "esc50", per_fold=1) / "audio").iterdir())
    labels = [int(file.stem.rpartition("-")[2]) for file in files]
    decoded = [{"array": soundfile.read(file)[0], "sampling_rate": sounds50.RATE_HZ} for file in files]

    class Tones(AbsTaskZeroShotClassification):
        metadata = TaskMetadata(
            name="Tones",
            description="three pitches",
            reference=None,
            dataset={"path": "tones", "revision": "1"},
            type="AudioZeroshotClassification",
            category="a2t",
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="accuracy",
            modalities=["audio", "text"],
        )
        input_column_name = "audio"
        label_column_name = "label"

        def load_data(self, *_args: object, **_options: object) -> None:
            # datasets.Audio would decode them by torchcodec, which needs FFmpeg's libraries
            self.dataset = datasets.DatasetDict(
                {"test": datasets.Dataset.from_dict({"audio": decoded, "label": labels})}
            )
            self.data_loaded = True

        def get_candidate_labels(self) -> list[str]:
            return [name.replace("_", " ") for name in sounds50.PITCHES_HZ]

    return Tones()
