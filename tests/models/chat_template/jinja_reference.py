"""The jinja2 environment in which transformers renders chat templates, for making fixtures."""

import datetime
import json

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# What strftime_now() shows in the fixtures: the tests render at the same time, in UTC.
CLOCK = datetime.datetime(2024, 7, 26, 9, 5, 3)


class Generation(Extension):
    """{% generation %} marks what the assistant wrote; as far as the text goes it does nothing."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise TemplateError(message)


def make_environment():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = CLOCK.strftime
    return environment


def render(source, context):
    """{"expected": text}, or {"error": message} where jinja2 raises."""
    try:
        return {"expected": make_environment().from_string(source).render(**context)}
    except Exception as error:  # noqa: BLE001: whatever a template can make Python raise
        return {"error": f"{type(error).__name__}: {error}"}
