"""What a run that is not finished needs to go on: weights, moments, running average, history; without pickle.

<out>/training_state/00000042.safetensors   weights, optimizer moments, the average where there is one
<out>/training_state/state.json             step, history, how many epochs are averaged; published after the tensors
<out>/history.json                          of a finished run: {"loss": [each step's], "epochs": [{epoch, loss, ...}]}
"""

import json
import logging
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from pipeline import storage

log = logging.getLogger("train.state")
FOLDER, STATE_FILE, HISTORY_FILE = "training_state", "state.json", "history.json"


class TrainingState:
    """State of a run under `out`, saved by the leading rank and loaded by all."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, out: str) -> None:
        """Take the bare network: its state has the same names on any number of workers."""
        self.model, self.optimizer, self.out = model, optimizer, out
        self.step = 0
        self.history: dict[str, list[Any]] = {"loss": [], "epochs": []}
        self.average: dict[str, Tensor] = {}
        self.averaged = 0
        self.previous = ""

    def average_weights(self) -> None:
        """Take the weights and buffers as they are into the average, equal weight to each time."""
        self.averaged += 1
        for name, value in self.model.state_dict().items():
            if self.averaged == 1 or not value.is_floating_point():
                self.average[name] = value.detach().clone()
            else:
                self.average[name] += (value - self.average[name]) / self.averaged

    def save(self) -> None:
        """Publish the state after `step` steps and drop the one before."""
        moments = self.optimizer.state_dict()["state"]
        tensors = {f"optimizer.{i}.{name}": value for i, entry in moments.items() for name, value in entry.items()}
        tensors |= {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        name = f"{self.step:08d}.safetensors"
        data = save_tensors({key: value.contiguous().cpu() for key, value in tensors.items()})
        storage.publish(self._uri(name), data)
        about = {"step": self.step, "tensors": name, "averaged": self.averaged, "history": self.history}
        storage.publish_json(self._uri(STATE_FILE), about)
        if self.previous not in ("", name):
            storage.remove(self._uri(self.previous))
        self.previous = name
        log.info("saved the state after step %d", self.step)

    def load(self) -> None:
        """Go on from the published state, if there is one."""
        if not storage.exists(self._uri(STATE_FILE)):
            return
        about: dict[str, Any] = json.loads(storage.read(self._uri(STATE_FILE)))
        tensors = load_tensors(storage.read(self._uri(about["tensors"])))
        self.model.load_state_dict(_under("model.", tensors))
        here = self.model.state_dict()
        self.average = {name: value.to(here[name].device) for name, value in _under("average.", tensors).items()}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer.", tensors).items():
            index, _, field = name.partition(".")
            moments.setdefault(int(index), {})[field] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step, self.averaged, self.history = about["step"], about["averaged"], about["history"]
        self.previous = about["tensors"]

    def _uri(self, name: str) -> str:
        return storage.join(self.out, FOLDER, name)


def finish(out: str, history: dict[str, list[Any]]) -> None:
    """Publish the history of a run whose checkpoint is published, and drop its state."""
    storage.publish_json(storage.join(out, HISTORY_FILE), history)
    storage.remove(storage.join(out, FOLDER))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
