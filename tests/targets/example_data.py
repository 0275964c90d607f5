"""What the example of device_runtime/mcu trains: LeNet-300-100 at 3.6 % density, made from a seed, and thirty digits.

The digits are MNIST's where the data set lies beside the clone, else scikit-learn's, enlarged to 28 x 28; the name that
is returned says which.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.device_runtime import nets
from tests.device_runtime.tkt_writer import SGD, Recipe, artifact

MNIST = Path(__file__).parents[3] / "shared/data/mnist"
COUNT = 30
RECIPE = Recipe(SGD, batch=1, learning_rate=0.05, momentum=0.0)
DRAWN = 0.0321  # and the first row of each layer is full: 9,594 of 266,200 weights live, 3.6 %

Bytes = NDArray[np.uint8]


def write(folder: Path) -> tuple[Path, Path, str]:
    """The artifact, the samples (of each: its label, then its pixels) and the name of the data set."""
    images, labels, name = mnist() if MNIST.is_dir() else enlarged_digits()
    net = nets.lenet(DRAWN, recipe=RECIPE, mean=(33.3,), inverse_std=(1 / 78.6,), card={"task": name})
    ticket, samples = folder / "lenet.tkt", folder / "digits.bin"
    ticket.write_bytes(artifact(net))
    samples.write_bytes(np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1).tobytes())
    return ticket, samples, name


def mnist() -> tuple[Bytes, Bytes, str]:
    images = idx(MNIST / "train-images-idx3-ubyte.gz", 16, COUNT * 784).reshape(COUNT, 784)
    return images, idx(MNIST / "train-labels-idx1-ubyte.gz", 8, COUNT), "MNIST"


def idx(path: Path, start: int, count: int) -> Bytes:
    with gzip.open(path) as file:
        file.seek(start)
        return np.frombuffer(file.read(count), np.uint8)


def enlarged_digits() -> tuple[Bytes, Bytes, str]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images[:COUNT], np.ones((3, 3))) * 255 / 16
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return images.astype(np.uint8), digits.target[:COUNT].astype(np.uint8), "scikit-learn digits, enlarged to 28 x 28"
