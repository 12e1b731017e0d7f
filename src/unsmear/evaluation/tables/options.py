"""What the command line says of benchmarks: NAME=FOLDER, NAME=PROTOCOL, NAME.KEY=VALUE."""

from collections.abc import Sequence

from unsmear.errors import EvaluationError


def by_name(texts: Sequence[str], form: str) -> dict[str, list[str]]:
    """Read "NAME=VALUE" each into the values of every name, in their order.

    Raises:
        EvaluationError: one is not of that form.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name.strip() or not value:
            raise EvaluationError(f"“{text}” should be {form}.")
        found.setdefault(name.strip(), []).append(value)
    return found


def folders(texts: Sequence[str]) -> dict[str, str]:
    """Read "NAME=FOLDER" each; EvaluationError for a name that comes twice."""
    found = by_name(texts, "NAME=FOLDER, such as gopro=GOPRO_Large")
    for name, places in found.items():
        if len(places) > 1:
            raise EvaluationError(
                f"{name} has {len(places)} folders: {', '.join(places)}; score them one after the other."
            )
    return {name: places[0] for name, places in found.items()}


def protocols(texts: Sequence[str]) -> dict[str, list[str]]:
    """Read "NAME=PROTOCOL" each; a benchmark may have several."""
    return by_name(texts, "NAME=PROTOCOL, such as lai-uniform=lai_shift")


def choices(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read "NAME.KEY=VALUE" each."""
    form = "NAME.KEY=VALUE, such as gopro.blurred=blur"
    found: dict[str, dict[str, str]] = {}
    for place, values in by_name(texts, form).items():
        name, _, key = place.partition(".")
        if not name or not key:
            raise EvaluationError(f"“{place}={values[-1]}” should be {form}.")
        found.setdefault(name, {})[key] = values[-1]
    return found
