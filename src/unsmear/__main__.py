"""`python -m unsmear`, the same as the command `unsmear`."""

from unsmear.cli import app

app(prog_name="unsmear")
