"""Run a network that qprune exported, with nothing but onnxruntime and numpy.

Images are .npy files, `(C, H, W)` or `(N, C, H, W)`, normalized as in training; without any, random ones are taken.

python examples/run_onnx.py model.onnx [images.npy ...]
"""

import json
import sys
import time

import numpy as np
import onnxruntime


def main(file: str, *images: str) -> None:
    """Print what is predicted for each image, and the time of one."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["qprune"])
    name = session.get_inputs()[0].name
    shape = about["shape"]  # channels, height and width
    arrays = [np.load(image).astype(np.float32).reshape(-1, *shape) for image in images]
    batch = np.concatenate(arrays) if arrays else np.random.default_rng(0).random((4, *shape), dtype=np.float32)
    for scores in session.run(None, {name: batch})[0]:
        print(predicted(scores, about["classes"]))
    times = []
    for _ in range(20):
        began = time.perf_counter()
        session.run(None, {name: batch[:1]})
        times.append(time.perf_counter() - began)
    print(f"one image: {1000 * np.median(times):.3f} ms")


def predicted(scores: np.ndarray, classes: list[str]) -> str:
    """The class of an image, or those of its pixels; for a network that makes images, the size of the one it made."""
    if len(scores) != len(classes):
        return f"an image of shape {scores.shape}"
    return ", ".join(classes[each] for each in np.unique(scores.argmax(0)))


if __name__ == "__main__":
    main(*sys.argv[1:])
