"""What a run that is not finished needs to go on: weights, moments, average, history; without pickle.

<out>/training_state/00000042.safetensors   weights, optimizer moments, the average where there is one; whole, never sharded
<out>/training_state/00000042.json          step, pieces of the history (train/trainer/history.py), averaged states;
                                            published after the tensors and the pieces
<out>/history.json                          of a finished run: {"loss": [each step's], "epochs": [...], "steps": [...]}

Random numbers and the order of the data are functions of the step, and bfloat16 needs no loss scale: nothing else is state.
"""

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from pipeline import storage
from train import parallel
from train.trainer.history import History, HistoryPieces, Piece

log = logging.getLogger(__name__)
FOLDER, HISTORY_FILE = "training_state", "history.json"


class TrainingState:
    """State of a run under `out`, saved by the leading rank and loaded by all."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, out: str, keep: int = 1) -> None:
        """Take the bare network: its state has the same names on any number of workers, and `keep` states are kept."""
        self.model, self.optimizer, self.out, self.keep = model, optimizer, out, keep
        self.step = 0
        self.history, self.pieces = History(), HistoryPieces(storage.join(out, FOLDER))
        self.average: dict[str, Tensor] = {}  # of weights and buffers by name, cut into pieces as those are; or nothing
        self.averaged = 0  # times that weights were taken into the average
        self.writer = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None

    def average_weights(self, ema_decay: float = 0.0) -> None:
        """Take the weights and buffers into the average: a moving one with this decay, or else one of equal shares (SWA).

        The arithmetic is torch's, without its AveragedModel: that one copies the network, which FSDP2 refuses, and with
        buffers it averages BatchNorm's integer counters too (SWA then raises). Here integers are copied.
        """
        now = {name: value.detach() for name, value in self.model.state_dict().items()}
        averaged = [name for name, value in now.items() if self.averaged and value.is_floating_point()]
        if averaged:
            take_in = get_ema_multi_avg_fn(ema_decay) if ema_decay else get_swa_multi_avg_fn()
            take_in(
                _local(self.average[name] for name in averaged), _local(now[name] for name in averaged), self.averaged
            )
        self.average |= {name: value.clone() for name, value in now.items() if name not in averaged}
        self.averaged += 1

    def save(self, writes: bool = True) -> None:
        """Begin to publish the state after `step` steps; with sharded weights every rank calls, and one `writes`.

        Raises:
            OSError: when what was begun before could not be published.
        """
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"optimizer.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        copies = {name: whole(value).detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
        if not writes:
            return
        self.wait()
        piece = self.pieces.cut(self.history)
        summary = {"step": self.step, "averaged": self.averaged, "pieces": self.pieces.names}
        self.pending = self.writer.submit(self._publish, self.step, copies, piece, summary)

    def wait(self) -> None:
        """Wait for what is being published. Raises OSError when it could not be."""
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def close(self) -> None:
        """Let what is being published end, and take no more."""
        self.writer.shutdown(wait=True)

    def _publish(self, step: int, tensors: dict[str, Tensor], piece: Piece, summary: dict[str, object]) -> None:
        storage.publish(self._uri(f"{step:08d}.safetensors"), save_tensors(tensors))
        self.pieces.publish(piece)
        storage.publish_json(self._uri(f"{step:08d}.json"), summary)
        states = _complete(self.out)
        for name in states[: -self.keep]:
            storage.remove(self._uri(f"{name}.json"))
            storage.remove(self._uri(f"{name}.safetensors"))
        kept = [storage.read_json(self._uri(f"{name}.json")) for name in states[-self.keep :]]
        self.pieces.clean_up({piece for each in kept for piece in each.get("pieces", ())})
        log.info("saved the state after step %d", step)

    def load(self) -> None:
        """Go on from the newest published state, if there is one."""
        found = _complete(self.out)
        if not found:
            return
        summary = storage.read_json(self._uri(f"{found[-1]}.json"))
        tensors = load_tensors(storage.read(self._uri(f"{found[-1]}.safetensors")))
        here = self.model.state_dict()
        self.model.load_state_dict(
            {name: _like(value, here[name]) for name, value in _under("model.", tensors).items()}
        )
        self.average = {name: _like(value, here[name]) for name, value in _under("average.", tensors).items()}
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, field = name.partition(".")
            example = parameters[int(index)]
            moments.setdefault(int(index), {})[field] = value if value.dim() == 0 else _like(value, example)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step, self.averaged = summary["step"], summary["averaged"]
        if "history" in summary:  # states of before there were pieces hold it whole
            self.history = History.from_json(summary["history"])
        else:
            self.history = self.pieces.read(summary["pieces"])

    def _uri(self, name: str) -> str:
        return storage.join(self.out, FOLDER, name)


def record(out: str, history: History) -> None:
    """Publish the history of a run, before its checkpoint says that it is complete."""
    storage.publish_json(storage.join(out, HISTORY_FILE), history.as_json())


def exists(out: str) -> bool:
    """Return whether a run has a state to go on from."""
    return bool(_complete(out))


def clear(out: str) -> None:
    """Drop the states of a run whose checkpoint is published."""
    storage.remove(storage.join(out, FOLDER))


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor that ranks may hold in pieces as one; then every rank must call."""
    sharded = parallel.as_sharded(tensor)
    return tensor if sharded is None else sharded.full_tensor()


def _like(tensor: Tensor, example: Tensor) -> Tensor:
    """Return a whole tensor on the device of an example, cut into pieces and laid out in memory as that is.

    Fused optimizers take moments in the layout of their parameters only.
    """
    sharded = parallel.as_sharded(example)
    if sharded is None:
        return torch.empty_like(example, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(example.device), sharded.device_mesh, sharded.placements)


def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return what this rank holds of tensors; it shares their memory."""
    pairs = ((tensor, parallel.as_sharded(tensor)) for tensor in tensors)
    return [tensor if sharded is None else sharded.to_local() for tensor, sharded in pairs]


def _complete(out: str) -> list[str]:
    """Return the names of the states that are whole, oldest first."""
    names = storage.list_names(storage.join(out, FOLDER))
    return [name.removesuffix(".json") for name in names if name.endswith(".json")]


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
