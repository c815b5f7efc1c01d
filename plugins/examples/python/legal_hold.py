"""No delete of a session that has a label. The settings name it: {"label": "legal-hold"}.

The classes below are what the worlds in the build command ask for. Names in kebab-case are snake_case here,
a case of a variant is a class, and the error of a result is raised.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.describe import Description
from wit_world.exports.settings import Problem
from wit_world.imports.types import Context, Decision, Decision_Allow, Decision_Deny, Denial, Operation

DEFAULT_LABEL = "legal-hold"

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {"label": {"type": "string", "minLength": 1, "default": DEFAULT_LABEL}},
}


def read(text: str) -> tuple[str, list[Problem]]:
    """Reads settings: the label, and what is wrong with them."""
    try:
        settings = json.loads(text) if text.strip() else {}
    except ValueError:
        return "", [Problem("", "the settings are not a JSON document")]
    if not isinstance(settings, dict):
        return "", [Problem("", "settings must be an object")]
    problems = []
    label = settings.pop("label", DEFAULT_LABEL)
    if not isinstance(label, str) or label == "":
        problems.append(Problem("/label", "the label needs a name"))
    for name in settings:
        pointer = name.replace("~", "~0").replace("/", "~1")
        problems.append(Problem(f"/{pointer}", "no such setting"))
    return label, problems


class Describe(exports.Describe):
    def describe(self) -> Description:
        return Description(
            name="legal-hold-python",
            version="1.0.0",
            description="A label keeps a session from being deleted.",
            settings_schema=json.dumps(SCHEMA),
            hooks=["session.delete"],
            events=[],
            wants=[],
        )


class Settings(exports.Settings):
    def validate(self, json: str) -> None:
        _, problems = read(json)
        if problems:
            raise Err(problems)


class Gate(exports.Gate):
    def before(self, context: Context, operation: Operation) -> Decision:
        if operation.name != "session.delete":
            return Decision_Allow()
        label, problems = read(context.settings)
        if problems:
            return deny("invalid_settings", "the settings of legal-hold are not valid")
        # A creation has no session yet.
        labels = context.session.labels if context.session else []
        held = next((kept.value for kept in labels if kept.key == label), None)
        if held is None or held == "false":
            return Decision_Allow()
        return deny("legal_hold", f"the label {label} keeps this session from being deleted")


def deny(code: str, message: str) -> Decision:
    return Decision_Deny(Denial(code=code, message=message, retry_after=None))
