"""`fleet dashboards preview`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.dashboards.building import BoardOption, LanguageOption, boards_of
from cli.dashboards.checking import (
    DatabaseOption,
    FromOption,
    InfluxUrlOption,
    NowOption,
    TokenFileOption,
    ToOption,
    VariableOption,
    ZoneOption,
    chosen_of,
    span_shown,
    token_of,
)
from cli.kinds import KindFolderOption
from cli.output import JsonOption, fail, print_json, usage_errors, words
from cli.places import check_address, need_folder

if TYPE_CHECKING:
    from dashboards.queries import Span

SAMPLE_DEVICES: Final = 390
SAMPLE_SEED: Final = 1


def preview(
    out: Annotated[Path, typer.Option(help="Folder for one PNG and one HTML page per board.")] = Path("build/preview"),
    influxdb_url: InfluxUrlOption = "",
    database: DatabaseOption = "fleet",
    token_file: TokenFileOption = None,
    start: FromOption = None,
    end: ToOption = None,
    now: NowOption = None,
    zone: ZoneOption = "Asia/Shanghai",
    variable: VariableOption = None,
    sample: Annotated[
        Path | None, typer.Option(help="Draw a made-up day of the whole fleet, kept in an InfluxDB in this folder.")
    ] = None,
    kilobytes_max: Annotated[int, typer.Option(help="Fewer colours, then smaller, until a PNG fits; 0: as it is.")] = 0,
    pages: Annotated[bool, typer.Option(help="Also write the HTML pages.")] = True,
    scale: Annotated[float, typer.Option(min=0.25, max=4.0, help="Size of the pictures; 1 is 1680 pixels wide.")] = 1.0,
    board: BoardOption = None,
    language: LanguageOption = "zh",
    kind_folder: KindFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw the boards without Grafana: the same queries, laid out on the board's grid, as PNG and HTML.

    Example: [bold]fleet dashboards preview --influxdb-url http://127.0.0.1:8086 --board fleet-overview[/bold]
    """
    boards = boards_of(language, kind_folder, board)
    with usage_errors(ValueError):
        if not influxdb_url and sample is None:
            raise ValueError("what is drawn comes from an InfluxDB: --influxdb-url, or --sample FOLDER")
        token, chosen = token_of(token_file, "FLEET_INFLUXDB_TOKEN"), chosen_of(variable or ())
        if influxdb_url and sample is None:
            check_address("--influxdb-url", influxdb_url)
        if sample is not None:
            chosen.setdefault("resolution", ["raw"])  # nobody rolls up the made-up day
        spans = {uid: span_shown(one, start, end, now, zone) for uid, one in boards.items()}
    _need_matplotlib()
    from cli.dashboards.influx import InfluxError, InfluxReader
    from dashboards.check import run_board
    from dashboards.preview import page_of, png_of, smaller, use_chinese_font

    if use_chinese_font() is None and language == "zh":
        words.print("no Chinese font here: install one (Debian: fonts-wqy-microhei), or draw with --language en")
    need_folder("--out", out)
    written = []
    try:
        with _server(influxdb_url, sample, spans) as url, InfluxReader(url, database, token) as reader:
            reader.check_database()
            for uid, one in boards.items():
                outcomes = run_board(one, reader.run, spans[uid], chosen)
                picture = png_of(one, outcomes, spans[uid], scale=scale)
                if kilobytes_max:
                    picture = smaller(picture, kilobytes_max * 1000)
                png, page = out / f"{uid}.png", out / f"{uid}.html"
                png.write_bytes(picture)
                failed = sum(outcome.answer.error is not None for outcome in outcomes)
                written.append({"board": uid, "png": str(png), "failed_queries": failed})
                if pages:
                    page.write_text(page_of(one, outcomes, spans[uid], picture), encoding="utf-8")
                    written[-1]["html"] = str(page)
                words.print(f"{png}")
    except InfluxError as error:
        raise fail(str(error)) from error
    if as_json:
        print_json(written)


@contextmanager
def _server(url: str, sample: Path | None, spans: Mapping[str, "Span"]) -> Iterator[str]:
    """The InfluxDB that is asked: one that is there, or a made-up fleet's."""
    if sample is None:
        yield url
        return
    from cli.sample.store import SampleError, SampleStore

    if not sample.exists():
        words.print(f"--sample {sample} is not there: it is made, and filled with a made-up day", markup=False)
    need_folder("--sample", sample)
    end_ms = max(span.to_ms for span in spans.values())
    try:
        with SampleStore(sample, days=1, devices=SAMPLE_DEVICES, seed=SAMPLE_SEED, end_ms=end_ms) as store:
            store.fill(levels=())
            yield store.url
    except SampleError as error:
        raise fail(str(error)) from error


def _need_matplotlib() -> None:
    try:
        import dashboards.preview  # noqa: F401  # only whether it can be
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("matplotlib"):
            raise
        raise fail("matplotlib is not installed; run: make setup, or pip install 'gaoxin-fleet[preview]'") from error
