"""The command line: every command is a typed function that calls the library under the same names."""

import contextlib
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from unsmear.errors import UnsmearError


class _Commands(TyperGroup):
    """Commands that print what unsmear raises on purpose as one sentence, and exit with 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UnsmearError as error:
            typer.echo(f"unsmear: {error}", err=True)
            raise typer.Exit(1) from error


app = typer.Typer(
    name="unsmear",
    cls=_Commands,
    help="Takes motion blur out of photographs, and makes the networks that do so.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="TOML file that lists what differs from the defaults.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the recipe's run.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key.")
    ] = None,
) -> None:
    """Train a network by a recipe, into a folder with checkpoints, a log and sample pictures."""
    _prepare_process()
    from unsmear import training

    typer.echo(training.train(training.read_recipe(recipe, changes=changes or ()), resume=resume))


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.")],
    dtype: Annotated[Literal["fp32", "fp16"], typer.Option(help="fp16 halves the file.")] = "fp32",
    which: Annotated[Literal["best", "last"], typer.Option(help="Best by validation, or last.")] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write the network of a training as one file to hand out."""
    from unsmear.training import exporting

    typer.echo(exporting.export(run, output, dtype=dtype, which=which, overwrite=overwrite))


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help='Network, checkpoint, folder of restored pictures, or "input".')
    ],
    pairs: Annotated[
        Path, typer.Argument(help="Folder of pairs, or CSV file with the columns blurred,sharp.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the scores.")] = Path(
        "evaluation"
    ),
    align: Annotated[Literal["none", "shift", "shift-gain"], typer.Option(help="Before scoring.")] = "none",
    max_shift: Annotated[int, typer.Option(help="Largest shift that --align tries, in pixels.")] = 32,
    channels: Annotated[Literal["luma", "rgb"], typer.Option(help="What an aligned PSNR sees.")] = "luma",
    eight_bit: Annotated[bool, typer.Option(help="Round what was restored to 8 bit first.")] = True,
    crop: Annotated[int | None, typer.Option(help="Only the middle CROP×CROP pixels: a quick look.")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only so many pairs, spread evenly: a quick look.")
    ] = None,
    blurred: Annotated[str | None, typer.Option(help="Which of several blurred folders, by name.")] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", …')] = "auto",
    save_restored: Annotated[Path | None, typer.Option(help="Folder for the restored pictures, PNG.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace scores of an earlier run.")] = False,
) -> None:
    """Score a network, or a folder of restored pictures, on pairs; exit code 1 if some were not scored."""
    _prepare_process()
    from unsmear import evaluation

    evaluation.check_writable(output, overwrite=overwrite)
    result = evaluation.evaluate(
        model, pairs, align=align, max_shift=max_shift, channels=channels, eight_bit=eight_bit, crop=crop,
        limit=limit, blurred=blurred, device=device, save_restored=save_restored, progress=True,
    )  # fmt: skip
    typer.echo(result.table())
    typer.echo("\nWritten: " + ", ".join(map(str, result.write(output, overwrite=overwrite))))
    raise typer.Exit(1 if result.failures else 0)


def _prepare_process() -> None:
    """Set what must be set before torch is loaded, where this version has anything to set."""
    with contextlib.suppress(ImportError):
        from unsmear.runtime import prepare_process

        prepare_process()
