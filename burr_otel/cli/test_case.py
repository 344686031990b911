"""``burr-otel test-case``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from burr_otel.cli import options
from burr_otel.cli.complete import app_ids
from burr_otel.cli.terminal import lines, output, print_json, write_file
from burr_otel.errors import StoreError
from burr_otel.history.settle import writer_lives
from burr_otel.view.find import find
from burr_otel.view.text import clean


@click.command("test-case")
@click.argument("app_id", shell_complete=app_ids)
@click.option(
    "--step",
    type=int,
    metavar="N",
    help="Which step.  [default: that of the span; else the last that failed; else the last]",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(file_okay=False),
    default="tests",
    show_default=True,
    metavar="DIR",
    help="Where the files go; it is made when it is not there.",
)
@click.option(
    "--action",
    metavar="MODULE:NAME",
    help="What to import.  [default: the function that was recorded]",
)
@click.option("--redacted", is_flag=True, help="Hide in the data what spans hide.")
@click.option("--replace", is_flag=True, help="Replace files of an earlier time.")
@click.option(
    "--burr", "for_burr", is_flag=True, help="Write a file of `burr-test-case` in place of both."
)
@options.project
@options.partition
@options.storage_dir
@options.as_json
def command(
    app_id: str,
    step: int | None,
    folder: str,
    action: str | None,
    redacted: bool,
    replace: bool,
    for_burr: bool,
    project: str | None,
    partition: str | None,
    storage_dir: str,
    as_json: bool,
) -> None:
    """Make a test of a recorded step.

    Writes a pytest file and its data: the state that the step read, its inputs, and its result or
    exception. The test runs the action on them. That of a step that failed fails until the action
    no longer raises; that of another one compares. APP_ID may also be the id of a trace or span.

    The data are the recorded values, secrets too, unless --redacted says otherwise.

    \b
    Examples:
      burr-otel test-case conversation-7
      burr-otel test-case 5b2f9f072eceeea4 -o tests/regressions
      burr-otel test-case demo-1f3a9c02 --step 7 --redacted
    """
    from burr_otel.view.content import reader_policy
    from burr_otel.view.test_case import burr_case, step_case

    run, _, named_step = find(storage_dir, app_id, project, partition)
    number = named_step if step is None else step
    case = step_case(
        run, writer_lives()(run), number, reader_policy(), redacted=redacted, action=action
    )
    place = Path(folder)
    texts = {place / f"test_{case.name}.json": case.data, place / f"test_{case.name}.py": case.code}
    if for_burr:
        texts = {place / f"{case.name}.json": burr_case(case)}
    for file in texts:
        if file.exists() and not replace:
            raise StoreError(f"{file} is there already; --replace writes it anew.")
    place.mkdir(parents=True, exist_ok=True)
    for file, text in texts.items():
        write_file(str(file), text)
    if as_json:
        print_json({"project": run.project, "app_id": run.app_id, "files": list(map(str, texts))})
        return
    lines(output(), [Text(f"Wrote {clean(str(file))}") for file in texts])
    if not redacted:
        said = "They hold recorded values as they are, secrets too; --redacted hides these."
        lines(output(stderr=True), [Text(said)])
