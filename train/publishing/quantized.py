"""The ONNX files with weights of 8 bits: a quarter of the size. Activations are quantized while the model runs.

The front end stays in float32: powers of spectra span more than a hundred decibels.
"""

import logging
from pathlib import Path

from train.publishing.onnx_files import AUDIO, TEXT

FILES = {AUDIO: "audio_int8.onnx", TEXT: "text_int8.onnx"}
OPERATIONS = ["Conv", "MatMul", "Gemm", "Gather"]
FRONT_ENDS = ("/encoder/melspec_extractor/", "/encoder/mel/", "/encoder/fbank/")  # names of nodes begin with these


def write(folder: Path) -> None:
    """Quantize the ONNX files of a folder to others beside them."""
    for source, target in FILES.items():
        _quantize(folder / source, folder / target)


def _quantize(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    nodes = onnx.load(str(source)).graph.node
    logging.disable(logging.WARNING)  # it advises to optimize first, which it does itself
    try:
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=OPERATIONS,
            nodes_to_exclude=[node.name for node in nodes if node.name.startswith(FRONT_ENDS)],
            weight_type=QuantType.QUInt8,  # ONNX Runtime has no convolution with signed weights
        )
    finally:
        logging.disable(logging.NOTSET)
