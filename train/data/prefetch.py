"""Batches on their way to the GPU, on a stream of their own: the next batch is copied while the GPU computes."""

import torch

from train.data.loader import Batch


class Prefetch:
    """Copies batches to a device. On a CPU they stay as they are."""

    def __init__(self, device: torch.device) -> None:
        """Take the device; a GPU gets a stream for copies."""
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch on the device; what is computed of it next waits for the copy, this thread does not.

        The copy overlaps with the step before as long as that step is still running on the GPU: nothing in a step may wait
        for its end. Batches are in page-locked memory; torch keeps it until the copy is over.
        """
        if self.stream is None:
            return batch
        tensors = (batch.waveform, batch.num_samples, batch.valid, *batch.inputs)
        with torch.cuda.stream(self.stream):
            moved = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for tensor in moved:
            tensor.record_stream(computing)  # its memory is not used again before the step is over
        waveform, num_samples, valid, *inputs = moved
        return batch._replace(waveform=waveform, num_samples=num_samples, valid=valid, inputs=tuple(inputs))
