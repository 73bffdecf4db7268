"""A bare run of a prepared model: what a user's own script would do, with none of leanmark's measuring.

Prints what the kernel says of the peak of this process (VmHWM) in bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def main() -> None:
    folder, phase, batch, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with np.load(folder.parent / "samples.npz") as samples:
        inputs, targets = samples["batch_inputs"][:batch], samples["batch_targets"][:batch]
    run = {"inference": infer, "training": train, "onnxruntime": infer_graph}[phase]
    run(folder, inputs, targets, steps)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")))


def infer(folder: Path, inputs: np.ndarray, _: np.ndarray, steps: int) -> None:
    import torch

    module = torch.load(folder / "module.pt", weights_only=False).eval()
    batch = torch.from_numpy(inputs)
    with torch.inference_mode():
        for _step in range(steps):
            module(batch)


def train(folder: Path, inputs: np.ndarray, targets: np.ndarray, steps: int) -> None:
    import torch

    module = torch.load(folder / "module.pt", weights_only=False).train()
    batch, labels = torch.from_numpy(inputs), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(module.parameters())
    for _step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(module(batch), labels).backward()
        optimizer.step()


def infer_graph(folder: Path, inputs: np.ndarray, _: np.ndarray, steps: int) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for _step in range(steps):
        session.run(None, {name: inputs})


if __name__ == "__main__":
    main()
