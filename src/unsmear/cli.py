"""The command line: every command is a typed function that calls the library under the same names."""

import typer

app = typer.Typer(
    name="unsmear",
    help="Takes motion blur out of photographs, and makes the networks that do so.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
