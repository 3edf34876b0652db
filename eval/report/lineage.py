"""Where each model comes from, as a table: the columns are read from the lineage that its checkpoint records."""

from eval.report.headline import Runs
from eval.report.tables import Rows
from train.checkpoint import ancestry

HEADER = ("model", "checkpoint", *ancestry.COLUMNS)


def rows(runs: Runs) -> Rows:
    """Return what each model was made by and from, a row for each run; header first."""
    models = [
        (", ".join(filter(None, (name, run))), model)
        for name, result in runs.items()
        for run, model in result.models.items()
    ]
    return [HEADER, *([name, model.revision[:12], *ancestry.columns(model.lineage)] for name, model in models)]
