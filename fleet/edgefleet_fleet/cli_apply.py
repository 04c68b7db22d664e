"""`fleet apply`: a declared fleet, what it would change, and the change."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgefleet_contract.errors import EdgefleetError, OperatorError
from edgefleet_fleet import cli_show as show
from edgefleet_fleet import watch as watching
from edgefleet_fleet.cli_options import DEFAULT_URL, Data, Json, Url, client
from edgefleet_fleet.errors import EXIT_REFUSED, EXIT_USAGE, exit_code

if TYPE_CHECKING:
    from edgefleet_fleet.apply_plan import Declared, Plan
    from edgefleet_fleet.apply_run import Outcome
    from edgefleet_fleet.client import Client

_MARKS = {"add": "+", "change": "~", "roll-out": ">", "remove": "-"}


def apply(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="The file: YAML; see the guide on gitops.")
    ] = None,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done, and do nothing.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune", help="Remove groups, webhooks and tags that are not declared."),
    ] = False,
    again: Annotated[
        bool,
        typer.Option("--again", help="Begin rollouts anew whose waves, gates or policy changed."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay until every rollout that began stands still.")
    ] = False,
    secrets: Annotated[
        Path | None, typer.Option(help="Where the secrets of new webhooks are written.")
    ] = None,
    coming: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL@VERSION",
            help="With --plan: take it as on the shelf, since it will be pushed first; repeatable.",
        ),
    ] = None,
    version_of: Annotated[
        str, typer.Option(metavar="MODEL", help="Print the version of a model that is declared.")
    ] = "",
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the file.")
    ] = False,
    as_json: Json = False,
    url: Url = DEFAULT_URL,
    data: Data = None,
) -> int:
    """Make the fleet what a file declares, and show what is not as declared.

    The exit code is 3 where something is in the way, and 1 where --watch sees a rollout stop.
    """
    from edgefleet_fleet import apply_plan, apply_present, apply_run
    from edgefleet_fleet.apply_schema import schema as schema_of

    if schema:
        show.json(schema_of())
        return 0
    if file is None:
        show.talk("fleet: error: no file is named\nfleet: hint: fleet apply -f fleet.yaml")
        return EXIT_USAGE
    declared = _read(file)
    if version_of:
        version = _version_of(declared, version_of)
        show.one({"model": version_of, "version": version}, as_json=as_json, line=str(version))
        return 0
    if coming and not only_plan:
        raise OperatorError("--coming is for a plan", hint="push the bundle, then apply")
    room = client(url, data)
    present = apply_present.gather(room, declared)
    present = apply_plan.with_coming(present, [_coming(text) for text in coming or ()])
    plan = apply_plan.plan(declared, present, prune=prune, again=again)
    if not as_json:
        _tell(plan)
    if plan.blocked or only_plan or not plan.steps:
        if as_json:
            show.json(_plan_view(plan) | {"done": []})
        return EXIT_REFUSED if plan.blocked else 0
    if apply_run.makes_secrets(plan) and secrets is None:
        raise OperatorError(
            "a new webhook has a secret, which is said only once", hint="--secrets FILE"
        )
    if not yes:
        _ask(len(plan.steps))
    outcome = apply_run.carry_out(
        room, plan, secrets=secrets, tell=lambda step: show.talk(f"done: {step.noun} {step.name}")
    )
    code = _watch(room, outcome) if watch and outcome.error is None else 0
    if as_json:
        show.json(_plan_view(plan) | _outcome_view(outcome))
    return _end(outcome) if outcome.error is not None else code


def _read(file: Path) -> Declared:
    from edgefleet_fleet.apply_file import parse

    try:
        return parse(file.read_text("utf-8"), name=str(file))
    except OSError as error:
        raise OperatorError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"{file} is not UTF-8") from None


def _version_of(declared: Declared, model: str) -> int:
    found = {wanted.version for wanted in declared.rollouts or () if wanted.model == model}
    if not found:
        raise OperatorError(f"no version of {model!r} is declared")
    return max(found)


def _coming(text: str) -> tuple[str, int]:
    model, _, version = text.partition("@")
    if not model or not version.isdigit():
        raise OperatorError(f"{text[:80]!r} is not MODEL@VERSION")
    return model, int(version)


def _tell(plan: Plan) -> None:
    for step in plan.steps:
        typer.echo(f"{_MARKS[step.action]} {step.noun} {step.name}  {step.detail}".rstrip())
    for drift in plan.drift:
        typer.echo(f"! {drift.noun} {drift.name} {drift.found}")
    for problem in plan.blocked:
        typer.echo(f"x {problem}")
    typer.echo(
        f"{len(plan.steps)} to do, {len(plan.unchanged)} unchanged, {len(plan.drift)} drifted,"
        f" {len(plan.blocked)} in the way"
    )


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise OperatorError("nobody is here to ask", hint="--yes does it, --plan only says it")
    typer.confirm(f"Do these {count}?", abort=True, err=True)


def _watch(room: Client, outcome: Outcome) -> int:
    code = 0
    for rollout in outcome.rollouts:
        view = watching.watch(room, rollout, console=show.STDERR)
        for line in watching.refusals(view):
            show.talk(line)
        code = code or watching.exit_code(view)
    return code


def _end(outcome: Outcome) -> int:
    assert outcome.failed is not None
    assert isinstance(outcome.error, EdgefleetError)
    what = f"{outcome.failed.noun} {outcome.failed.name}"
    show.talk(f"fleet: error: {what}: {outcome.error.message}")
    hint = outcome.error.hint or "mend it and apply again: what is done stays done"
    show.talk(f"fleet: hint: {hint}")
    show.talk(f"{len(outcome.done)} done, {len(outcome.left)} not begun")
    return exit_code(outcome.error)


def _plan_view(plan: Plan) -> dict[str, Any]:
    return {
        "steps": [_step_view(step) for step in plan.steps],
        "unchanged": list(plan.unchanged),
        "drift": [dataclasses.asdict(drift) for drift in plan.drift],
        "blocked": list(plan.blocked),
    }


def _step_view(step: Any) -> dict[str, Any]:
    return {"action": step.action, "noun": step.noun, "name": step.name, "detail": step.detail}


def _outcome_view(outcome: Outcome) -> dict[str, Any]:
    failed = None
    if outcome.failed is not None and outcome.error is not None:
        failed = _step_view(outcome.failed) | {"error": outcome.error.message}
    return {
        "done": [_step_view(step) for step, _answer in outcome.done],
        "rollouts": outcome.rollouts,
        "failed": failed,
        "not_begun": [_step_view(step) for step in outcome.left],
    }
