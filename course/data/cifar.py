"""CIFAR-100 and CIFAR-10, downloaded once and checked."""

import socket
from pathlib import Path
from typing import Any

from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_and_extract_archive

CIFAR: dict[str, tuple[Any, tuple, tuple]] = {  # the class, and its training images' mean and std
    "cifar100": (datasets.CIFAR100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar10": (datasets.CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


def load_cifar(name: str, root: Path) -> tuple:
    """torchvision's dataset as (training, test), mean, std; downloaded to `root` if need be.

    Every file is checked by its md5; what is broken or half there is fetched or unpacked again.
    Raises RuntimeError where it cannot be had.
    """
    dataset, mean, std = CIFAR[name]
    folder = root / dataset.base_folder
    files = dict(dataset.train_list) | dict(dataset.test_list)
    files[dataset.meta["filename"]] = dataset.meta["md5"]  # which download=True does not look at
    timeout = socket.getdefaulttimeout()
    try:
        if not all(check_integrity(folder / name, md5) for name, md5 in files.items()):
            socket.setdefaulttimeout(30)  # seconds; torchvision sets none and might wait for ever
            download_and_extract_archive(
                dataset.url, root, filename=dataset.filename, md5=dataset.tgz_md5
            )
        return [dataset(root, train=train) for train in (True, False)], mean, std
    except Exception as error:
        raise RuntimeError(
            f"could not get {dataset.filename} from {dataset.url} ({error}): check the connection,"
            f" or put the archive {dataset.filename} into {root}, or use"
            ' load_data("shapetexture100")'
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
