"""R of Eq. 3: what is known of a kernel before a photograph is seen.

The objective is ½ Σ_c Σ_i r_c(i)² + weight · Σ_b R(k_b). Eq. 3 has R inside the sum over the pixels, which
would make its weight grow with the photograph; here it stands outside.

| name    | R(k)              | convex | prefers on the simplex |
|---------|-------------------|--------|------------------------|
| none    | 0                 | yes    | |
| ridge   | ½ Σ k²            | yes    | flat kernels: least at k = 1/K² |
| l1      | Σ abs(k) = 1      | yes    | nothing: it is constant there and changes nothing |
| entropy | −Σ k log k        | no     | few taps |
| lp      | Σ (k + floor)^p   | no     | few taps; p = ½ |

The last two are concave, so a tangent lies above them: each round minimises the data term plus the tangent at
the kernels it starts from (majorise–minimise). The objective falls from round to round; where it ends depends
on the start, and the Frank–Wolfe gap then says how far the point is from being stationary, no longer how far
the objective is from the best one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unsmear.errors import KernelError

Name = Literal["none", "ridge", "l1", "entropy", "lp"]
_NAMES: tuple[Name, ...] = ("none", "ridge", "l1", "entropy", "lp")


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A prior R with its weight; see the table at the head of this file.

    Attributes:
        name: "none", "ridge", "l1", "entropy" or "lp".
        weight: ≥ 0, in units of the data term ½ Σ r²: for noise σ a weight of some σ² is felt.
        power: p of "lp", above 0 and below 1.
        floor: added to the taps before the power or the logarithm, so that slopes stay finite; a tap that is
            well below it counts as zero.
    """

    name: Name = "none"
    weight: float = 0.0
    power: float = 0.5
    floor: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse what is no prior.

        Raises:
            KernelError: unknown name, negative weight, power outside (0, 1), floor not above 0.
        """
        if self.name not in _NAMES:
            raise KernelError(f"The prior is {self.name!r}; expected one of {', '.join(_NAMES)}.")
        if not self.weight >= 0:
            raise KernelError(f"The prior's weight is {self.weight}; expected 0 or more.")
        if not 0 < self.power < 1 or not self.floor > 0:
            raise KernelError(
                f"power {self.power}, floor {self.floor}; expected a power in (0, 1) and a floor above 0."
            )

    @property
    def active(self) -> bool:
        """Whether the prior changes anything: not "none", not "l1", and a weight."""
        return self.weight > 0 and self.name not in ("none", "l1")

    @property
    def convex(self) -> bool:
        """Whether the objective stays convex, so that the gap bounds the distance from the best objective."""
        return not self.active or self.name == "ridge"

    @property
    def curvature(self) -> float:
        """What the prior adds to the Hessian's diagonal."""
        return self.weight if self.name == "ridge" else 0.0

    def value(self, kernels: Tensor) -> float:
        """Weight · Σ_b R(k_b) for kernels ≥ 0 of any shape; "l1" gives its constant, weight · B."""
        k = kernels.double()
        if self.name == "none" or self.weight == 0:
            return 0.0
        if self.name == "ridge":
            return self.weight * 0.5 * float(k.square().sum())
        if self.name == "l1":
            return self.weight * float(k.abs().sum())
        if self.name == "entropy":
            return -self.weight * float((k * (k + self.floor).log()).sum())
        return self.weight * float((k + self.floor).pow(self.power).sum())

    def slope(self, kernels: Tensor) -> Tensor:
        """Gradient of :meth:`value`, the same shape and dtype ("l1": zero, as on the simplex)."""
        k = kernels.double()
        if not self.active:
            return torch.zeros_like(kernels)
        if self.name == "ridge":
            slope = k
        elif self.name == "entropy":
            slope = -(k + self.floor).log() - k / (k + self.floor)
        else:
            slope = self.power * (k + self.floor).pow(self.power - 1)
        return (self.weight * slope).to(kernels.dtype)


NONE = Prior()


def as_prior(prior: Prior | str) -> Prior:
    """Return the prior, or the one of that name if it needs no weight ("none", "l1").

    Raises:
        KernelError: a name that needs a weight, or no name of a prior.
    """
    if isinstance(prior, Prior):
        return prior
    if prior in ("none", "l1"):
        return Prior(name="none" if prior == "none" else "l1")
    raise KernelError(f'The prior is {prior!r}; expected "none", "l1" or Prior(name=…, weight=…).')
