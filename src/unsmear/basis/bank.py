"""A bank of blur kernels: one safetensors file with the kernels and what is known of each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from unsmear.basis.kernels import (
    SMOOTHNESS,
    Kernel,
    camera_shake,
    check_kernels,
    defocus,
    linear_motion,
)
from unsmear.errors import KernelError

_HEADER = "unsmear kernel bank"


@dataclass(frozen=True)
class KernelBank:
    """M kernels of one size and what is known of each.

    Attributes:
        kernels: (M, K, K) float32, K odd, non-negative, sum one, centred by mass.
        info: one dictionary a kernel, JSON values only; the simulator writes kind, length (px), angle
            (degrees), smoothness, radius (px), seed, index and source as far as they apply.
    """

    kernels: Kernel
    info: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Check the kernels and that there is one info each.

        Raises:
            KernelError: no (M, K, K) stack of kernels, or infos of another number.
        """
        kernels = check_kernels(self.kernels)
        if kernels.ndim != 3 or len(kernels) == 0:
            raise KernelError(f"a bank has kernels of shape (M, K, K), M ≥ 1; these have {kernels.shape}")
        info = tuple(self.info) or tuple({} for _ in kernels)
        if len(info) != len(kernels):
            raise KernelError(f"{len(kernels)} kernels but {len(info)} infos; expected one info a kernel")
        object.__setattr__(self, "kernels", kernels)
        object.__setattr__(self, "info", info)

    def __len__(self) -> int:
        """Return M, the number of kernels."""
        return len(self.kernels)

    def to_bytes(self) -> bytes:
        """Return the file's content: safetensors with "kernels" and the infos as JSON in its header."""
        # One entry only: safetensors writes several in random order, and equal banks should be equal files.
        header = {_HEADER: json.dumps({"version": 1, "info": self.info}, sort_keys=True)}
        return bytes(save({"kernels": np.ascontiguousarray(self.kernels)}, metadata=header))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the bank to a .safetensors file, complete or not at all; an existing file is replaced."""
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            part.write_bytes(self.to_bytes())
            part.replace(target)
        except OSError as error:
            raise KernelError(f"cannot write the bank {target}: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "KernelBank":
        """Read a bank and check it.

        Raises:
            KernelError: the file is missing, no bank, or its kernels are none.
        """
        try:
            with safe_open(str(path), framework="numpy") as file:
                header = file.metadata() or {}
                if "kernels" not in file.keys():  # noqa: SIM118 (a file handle, no dictionary)
                    raise KernelError(f'{path} holds no tensor "kernels"; it is no kernel bank')
                kernels = file.get_tensor("kernels")
            about = json.loads(header.get(_HEADER, "{}"))
            info = about.get("info", []) if isinstance(about, dict) else None
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise KernelError(f"cannot read {path} as a kernel bank: {error}") from error
        if not isinstance(info, list) or not all(isinstance(item, dict) for item in info):
            raise KernelError(f"{path}: the infos are no list of dictionaries; it is no kernel bank")
        try:
            return cls(kernels, tuple(info))
        except KernelError as error:
            raise KernelError(f"{path}: {error}") from error

    def picture(self, *, columns: int | None = None, scale: int = 1, limit: int = 400) -> NDArray[np.uint8]:
        """Return a contact sheet of the first `limit` kernels.

        Each kernel is divided by its maximum and shown as the square root, so that faint parts are seen.

        Args:
            columns: kernels in a row; about square where None.
            scale: pixels on the sheet for each pixel of a kernel.
            limit: most kernels shown.

        Returns:
            (H, W, 1) uint8 grey, white on black, a dark grey line between the kernels.
        """
        shown = self.kernels[:limit]
        return contact_sheet(shown, columns=columns, scale=scale)


def contact_sheet(kernels: Kernel, *, columns: int | None = None, scale: int = 1) -> NDArray[np.uint8]:
    """Return (M, K, K) kernels as one (H, W, 1) uint8 picture; see `KernelBank.picture`."""
    count, size, _ = kernels.shape
    across = columns or int(np.ceil(count**0.5))
    down = -(-count // across)
    peak = kernels.max(axis=(1, 2), keepdims=True)
    tiles = (
        np.rint(255 * np.sqrt(kernels / peak)).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    )
    step = size * scale + 1
    sheet = np.full((down * step + 1, across * step + 1), 64, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = 1 + (index // across) * step, 1 + (index % across) * step
        sheet[row : row + step - 1, column : column + step - 1] = tile
    return sheet[..., None]


def simulate_bank(
    count: int,
    *,
    seed: int = 0,
    size: int = 65,
    lengths: tuple[float, float] = (2.0, 60.0),
    kinds: Sequence[str] = ("shake", "shake", "shake", "linear", "defocus"),
) -> KernelBank:
    """Simulate a bank. Kernel i is a function of (seed, i) and the other arguments, whatever `count` is.

    Args:
        count: M, number of kernels.
        seed: first half of each kernel's random state.
        size: K, odd, at most 65.
        lengths: extents of shakes and straight motions in pixels, log-uniform between the two; those that
            do not fit into K are shrunk.
        kinds: what to draw from, with equal chances: "shake" (Matérn path), "linear", "defocus" (radius
            0.7 to 2.5 px).

    Raises:
        KernelError: an unknown kind, an even size, no kernels asked for.
    """
    unknown = sorted(set(kinds) - {"shake", "linear", "defocus"})
    if unknown or not kinds:
        raise KernelError(f"unknown kinds {unknown}; expected shake, linear or defocus")
    if count < 1 or not 0 < lengths[0] <= lengths[1]:
        raise KernelError(f"cannot simulate {count} kernels of {lengths[0]} to {lengths[1]} px")
    kernels, info = [], []
    for index in range(count):
        generator = np.random.default_rng(np.random.SeedSequence([seed, index]))
        kind = kinds[int(generator.integers(len(kinds)))]
        length = float(np.exp(generator.uniform(*np.log(lengths))))
        facts: dict[str, Any] = {"kind": kind, "seed": seed, "index": index, "source": "simulated"}
        if kind == "shake":
            smoothness = float(generator.choice(SMOOTHNESS))
            kernel = camera_shake(generator, size, length=length, smoothness=smoothness)
            facts |= {"length": round(length, 3), "smoothness": smoothness}
        elif kind == "linear":
            angle = float(generator.uniform(0.0, 180.0))
            length = min(length, size - 1.0)
            kernel = linear_motion(length, angle, size)
            facts |= {"length": round(length, 3), "angle": round(angle, 3)}
        else:
            radius = float(generator.uniform(0.7, min(2.5, size / 2)))
            kernel = defocus(radius, size)
            facts |= {"length": round(2 * radius, 3), "radius": round(radius, 3)}
        kernels.append(kernel)
        info.append(facts)
    return KernelBank(np.stack(kernels), tuple(info))
