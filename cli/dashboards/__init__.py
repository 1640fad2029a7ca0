"""`fleet dashboards`: Grafana boards made from the kinds' panels: write, prove, compare, publish, draw."""

import typer

from cli.dashboards import building, checking, drawing, publishing

app = typer.Typer(help="Grafana boards made from the kinds' panels.", no_args_is_help=True)


@app.callback()
def _boards() -> None:
    """Grafana boards made from the kinds' panels."""


app.command("build")(building.build)
app.command("check")(checking.check)
app.command("diff")(publishing.diff)
app.command("publish")(publishing.publish)
app.command("preview")(drawing.preview)

__all__ = ["app"]
