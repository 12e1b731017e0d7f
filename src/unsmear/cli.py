"""The command line: every command is a typed function that calls the library under the same names."""

import os
import warnings
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


class _KernelCommands(TyperGroup):
    """`kernels FOLDER …` is `kernels estimate FOLDER …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((word for word in args if not word.startswith("-")), None)
        asked = "--help" in args and first is None
        if args and not asked and first not in self.commands:
            args = ["estimate", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="unsmear",
    cls=_Commands,
    help="Takes motion blur out of photographs, and makes the networks that do so.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as one sentence, without the line of code that it came from."""
    typer.echo(f"unsmear: {message}", err=True)


def _version(wanted: bool) -> None:
    if wanted:
        from unsmear import __version__

        typer.echo(f"unsmear {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take motion blur out of photographs, and make the networks that do so."""
    warnings.showwarning = _say


kernels = typer.Typer(
    cls=_KernelCommands,
    help="Make and look at banks of blur kernels: `unsmear kernels FOLDER -o BANK` estimates them.",
    no_args_is_help=True,
)
app.add_typer(kernels, name="kernels")


@kernels.command()
def estimate(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Blurred photographs, or folders of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bank to write, .safetensors.")],
    size: Annotated[int, typer.Option(help="Size of the kernels in pixels, odd.")] = 65,
    most: Annotated[int, typer.Option(min=1, help="Kernels in the bank at most.")] = 5000,
    least_confidence: Annotated[float, typer.Option(help="Below it kernels are left out, 0 to 1.")] = 0.5,
    alike: Annotated[float, typer.Option(help="Correlation of near-duplicates, 0 to 1.")] = 0.95,
    pixels: Annotated[int, typer.Option(help="Larger photographs are reduced to so many.")] = 1_000_000,
    regions: Annotated[int, typer.Option(help="Regions of a photograph at most.")] = 6,
    workers: Annotated[int | None, typer.Option(help="Processes; without it one a core.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write a contact sheet, e.g. PNG.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bank that is there.")] = False,
) -> None:
    """Estimate the kernels of blurred photographs and keep different ones; the same call goes on where it
    was stopped; exit code 1 if a photograph failed or none had a kernel."""
    from unsmear.estimation.collecting import CollectSettings, collect_bank
    from unsmear.photo import Photo, write_photo

    bank, report = collect_bank(
        inputs, output, settings=CollectSettings(pixels, regions), size=size, most=most,
        least_confidence=least_confidence, alike=alike, workers=workers, overwrite=overwrite, progress=True,
    )  # fmt: skip
    if bank is not None and picture is not None:
        write_photo(Photo(pixels=bank.picture()), picture, overwrite=True)
    typer.echo(f"{report}\n{output if bank is not None else 'No kernel to trust, no bank written.'}")
    raise typer.Exit(1 if bank is None or report.failures else 0)


@kernels.command()
def simulate(
    output: Annotated[Path, typer.Argument(help="The bank to write, .safetensors.")],
    count: Annotated[int, typer.Option(help="Number of kernels.")] = 1000,
    size: Annotated[int, typer.Option(help="Their size in pixels, odd.")] = 65,
    seed: Annotated[int, typer.Option(help="Other seeds give other kernels.")] = 0,
    picture: Annotated[Path | None, typer.Option(help="Also write a contact sheet, e.g. PNG.")] = None,
) -> None:
    """Simulate camera shakes, straight motions and mild defocus, and save them as a bank."""
    from unsmear.basis.bank import simulate_bank
    from unsmear.photo import Photo, write_photo

    bank = simulate_bank(count, seed=seed, size=size)
    bank.save(output)
    if picture is not None:
        write_photo(Photo(pixels=bank.picture()), picture, overwrite=True)
    typer.echo(f"{count} kernels of {size}×{size} pixels in {output}")


@kernels.command()
def show(
    bank: Annotated[Path, typer.Argument(help="A bank of kernels, .safetensors.")],
    picture: Annotated[Path, typer.Argument(help="The contact sheet to write, e.g. PNG.")],
    limit: Annotated[int, typer.Option(min=1, help="Most kernels shown.")] = 400,
) -> None:
    """Write a picture of the kernels of a bank."""
    from unsmear.basis.bank import KernelBank
    from unsmear.photo import Photo, write_photo

    loaded = KernelBank.load(bank)
    write_photo(Photo(pixels=loaded.picture(limit=limit)), picture, overwrite=True)
    typer.echo(f"{min(limit, len(loaded))} of {len(loaded)} kernels in {picture}")


@app.command()
def pairs(
    sharp: Annotated[list[Path], typer.Argument(help="Sharp photographs, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pairs.")],
    count: Annotated[int, typer.Option(help="Number of pairs.")] = 50_000,
    size: Annotated[int, typer.Option(help="Side of the crops in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Other seeds give other pairs.")] = 0,
    bank: Annotated[Path | None, typer.Option(help="Bank of kernels; without it they are simulated.")] = None,
    settings: Annotated[Path | None, typer.Option(help="TOML file of PairSettings that differ.")] = None,
    estimates: Annotated[
        int, typer.Option(help="Estimate the kernels of so many pairs too, for guided networks.")
    ] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; without it one a core.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write the first 12 as a picture.")] = None,
) -> None:
    """Make pairs of sharp and blurred images; the same call again goes on where it was stopped."""
    from unsmear import pairs as made
    from unsmear.photo import Photo, write_photo

    chosen = None if settings is None else made.read_settings(settings)
    sampler = made.PairSampler(sharp, bank, seed=seed, size=size, settings=chosen)
    typer.echo(made.write_pairs(sampler, count, output, workers=workers, progress=True))
    if estimates:
        typer.echo(made.write_estimates(output, estimates, workers=workers, progress=True))
    if picture is not None:
        first = [sampler[index] for index in range(min(count, 12))]
        write_photo(Photo(pixels=made.pairs_picture(first, across=2)), picture, overwrite=True)


@app.command()
def deblur(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="FILE|FOLDER...", help="Photographs, or folders of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder, or file for a single photograph.")],
    model: Annotated[str, typer.Option(help="Network in the package, or checkpoint file.")] = "guided-s",
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", …')] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Of the large products.")
    ] = "auto",
    statistics: Annotated[
        Literal["whole", "tile"], typer.Option(help="What low-rank modules sum over.")
    ] = "tile",
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of the largest tile; else by the memory.")
    ] = None,
    by: Annotated[
        Literal["auto", "network", "kernels"],
        typer.Option(help="A network alone (--model), kernels alone (whatever the model), or both."),
    ] = "auto",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Look for one blur in all of the photo, not that of each part: half the time, less gain.",
        ),
    ] = False,
    format: Annotated[str | None, typer.Option(help='Suffix of the new files, such as "png".')] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG, WebP, AVIF and HEIC.")] = 95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make again what is there.")] = False,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Also write NAME-before-after.jpg.")
    ] = False,
) -> None:
    """Take the motion blur out of photographs; what is finished is skipped, exit code 1 if one failed."""
    _prepare_process()
    if model == "guided-s" or by == "kernels":
        from unsmear.runtime import start_workers

        start_workers("unsmear.estimation.candidates")
    from unsmear.deblurring import deblur_files

    summary = deblur_files(
        inputs, output, model=model, device=device, precision=precision, statistics=statistics, tile=tile,
        by=by, fast=fast, format=format, quality=quality, overwrite=overwrite, side_by_side=side_by_side,
        progress=True,
    )  # fmt: skip
    typer.echo(summary)
    raise typer.Exit(1 if summary.failures else 0)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(help="A photograph.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The picture; NAME-explained.png beside the photo.")
    ] = None,
    pixels: Annotated[int, typer.Option(help="A larger photograph is reduced to so many.")] = 500_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a picture that is there.")] = False,
) -> None:
    """Say how a photograph is blurred, and draw it: kernels over the photo, basis, masks, residual."""
    _prepare_process()
    from unsmear.estimation.explaining import explain_file

    target, explanation = explain_file(photo, output, pixels=pixels, overwrite=overwrite)
    typer.echo(f"{photo}: {explanation.fit.sentence}\n{target}")


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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from unsmear.runtime import leave

        leave()


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
    protocol: Annotated[str | None, typer.Option(help="How a benchmark is scored, by name.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="PAIRS is the download of it, by name.")] = None,
    align: Annotated[Literal["none", "shift", "shift-gain"], typer.Option(help="Before scoring.")] = "none",
    max_shift: Annotated[int, typer.Option(min=0, help="Largest shift that --align tries, in pixels.")] = 32,
    channels: Annotated[Literal["luma", "rgb"], typer.Option(help="What an aligned PSNR sees.")] = "luma",
    eight_bit: Annotated[bool, typer.Option(help="Round what was restored to 8 bit first.")] = True,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Only the middle CROP×CROP pixels: a quick look.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many pairs, spread evenly: a quick look.")
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
        model, pairs, protocol=protocol, benchmark=benchmark, align=align, max_shift=max_shift,
        channels=channels, eight_bit=eight_bit, crop=crop, limit=limit, blurred=blurred, device=device,
        save_restored=save_restored, progress=True,
    )  # fmt: skip
    typer.echo(result.table())
    typer.echo("\nWritten: " + ", ".join(map(str, result.write(output, overwrite=overwrite))))
    raise typer.Exit(1 if result.failures else 0)


@app.command()
def tables(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="METHOD...", help='"input", network, checkpoint or folder of results; LABEL=METHOD.'
        ),
    ],
    benchmark: Annotated[
        list[str],
        typer.Option("--benchmark", "-b", metavar="NAME=FOLDER", help="A benchmark; may be repeated."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tables and pictures.")] = Path(
        "tables"
    ),
    protocol: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PROTOCOL", help="Other than its own; may be repeated.")
    ] = None,
    choices: Annotated[
        list[str] | None,
        typer.Option(
            "--choose", metavar="NAME.KEY=VALUE", help="Such as gopro.blurred=blur; may be repeated."
        ),
    ] = None,
    crop: Annotated[
        list[str] | None, typer.Option(metavar="PICTURE:x,y,w,h", help="Draw this picture, zoomed there.")
    ] = None,
    show: Annotated[
        int, typer.Option(min=0, help="Pictures drawn of each benchmark: most disagreement.")
    ] = 2,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many pictures of each, spread evenly: a quick look.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="What earlier runs found; else OUTPUT/cache.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; without it one a core.")] = None,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda", …')] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tables of an earlier run.")] = False,
) -> None:
    """Write the paper's tables and figures for any methods; the same call again goes on where it stopped."""
    _prepare_process()
    from unsmear.evaluation import tables as made
    from unsmear.evaluation.tables import options

    written = made.make_tables(
        methods, options.folders(benchmark), output, protocols=options.protocols(protocol or []),
        choices=options.choices(choices or []), crops=crop or [], show=show, limit=limit, cache=cache,
        workers=workers, device=device, overwrite=overwrite, progress=True,
    )  # fmt: skip
    typer.echo(written)
    raise typer.Exit(1 if written.failures else 0)


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="A benchmark; without it all are listed.")] = None,
    path: Annotated[Path | None, typer.Argument(help="Its download, to be looked at.")] = None,
    choices: Annotated[
        list[str] | None, typer.Option("--choose", metavar="KEY=VALUE", help="Such as blurred=blur.")
    ] = None,
    read: Annotated[bool, typer.Option("--read", help="Read every picture.")] = False,
) -> None:
    """Say where the benchmarks are to be had, and what of one is at a path; exit code 1 if it is broken."""
    _prepare_process()
    from unsmear.evaluation.benchmarks import report

    typer.echo(report.list_benchmarks() if name is None else report.describe(name))
    if path is None and (read or choices):
        raise UnsmearError("--read and --choose need the PATH of a download: unsmear datasets NAME PATH.")
    if name is not None and path is not None:
        chosen = report.parse_choices(choices or [])
        text, well = report.look(name, path, choices=chosen, read=read, progress=True)
        typer.echo(f"\n{text}")
        raise typer.Exit(0 if well else 1)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Weights of the official code, .pth or .safetensors.")],
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="Our network, of the same size.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.")],
    local_window: Annotated[
        int | None, typer.Option(min=1, help="NAFNet: local statistics, 384 in its authors' tests.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write official weights of a network as a checkpoint of ours, which computes the same."""
    from unsmear.models import convert as conversion

    arguments = {} if local_window is None else {"local_window": local_window}
    typer.echo(conversion.convert(source, name, output, arguments=arguments, overwrite=overwrite)[1])


@app.command()
def onnx(
    model: Annotated[str, typer.Argument(help="Network in the package, or checkpoint file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, NAME.onnx.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a network as ONNX for any height and width, after a comparison in onnxruntime."""
    from unsmear.models.onnx_export import export_onnx

    typer.echo(export_onnx(model, output, overwrite=overwrite))


@app.command()
def models() -> None:
    """List the networks: parameters, multiply-adds for a 256×256 photo, and the published figures."""
    from unsmear.models import costs

    typer.echo(costs.table())


@app.command()
def doctor() -> None:
    """Say what unsmear finds here: versions, device, memory, weights; exit code 1 if it cannot work."""
    _prepare_process()
    from unsmear.doctor import examine

    well = True
    for finding in examine():
        typer.echo(finding)
        well &= finding.well
    raise typer.Exit(0 if well else 1)


def _prepare_process() -> None:
    """Set what must be set before torch is loaded."""
    from unsmear.runtime import prepare_process

    prepare_process()
