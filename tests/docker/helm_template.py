"""Renders the chart as far as its templates go: values, if, or, range, and the filters quote and
toJson. It stands in for helm, which no package brings; anything else in a template is an error."""

import json
import re

TAG = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}")


class TemplateError(Exception):
    pass


def render(text, context):
    pieces = _split(text)
    out, rest = _block(pieces, context, context)
    if rest:
        raise TemplateError(f"end without if or range: {rest[0]}")
    return out


def _split(text):
    """[("text" | "tag", content)], blanks trimmed where a tag says so."""
    pieces, at = [], 0
    trim_next = False
    for match in TAG.finditer(text):
        before = text[at:match.start()]
        before = before.lstrip() if trim_next else before
        pieces.append(("text", before.rstrip() if match[1] else before))
        pieces.append(("tag", match[2]))
        at, trim_next = match.end(), bool(match[3])
    tail = text[at:]
    if "{{" in tail:
        raise TemplateError("a tag is not closed")
    pieces.append(("text", tail.lstrip() if trim_next else tail))
    return pieces


def _block(pieces, dot, root, skip=False):
    """The text up to an end of this block, and what follows that."""
    out = ""
    while pieces:
        (kind, content), pieces = pieces[0], pieces[1:]
        if kind == "text":
            out += "" if skip else content
        elif content == "end":
            return out, [("tag", "end"), *pieces]
        elif content.startswith(("if ", "range ")):
            word, expression = content.split(None, 1)
            value = None if skip else _value(expression, dot, root)
            items = (value if word == "range" else [dot]) if value else []
            after = None
            for item in items:
                text, after = _block(pieces, item if word == "range" else dot, root)
                out += text
            if not items:
                _, after = _block(pieces, dot, root, skip=True)
            if not after:
                raise TemplateError(f"{content} has no end")
            pieces = after[1:]
        else:
            out += "" if skip else _text(_value(content, dot, root))
    return out, []


def _value(expression, dot, root):
    path, *filters = [part.strip() for part in expression.split("|")]
    if path == ".":
        value = dot
    elif path.startswith("or "):
        value = next((value for word in path.split()[1:] if (value := _value(word, dot, root))), "")
    elif re.fullmatch(r"(\.\w+)+", path):
        value = root
        for name in path[1:].split("."):
            if name not in value:
                raise TemplateError(f"{path}: there is no {name}")
            value = value[name]
    else:
        raise TemplateError(f"not known here: {expression}")
    for name in filters:
        if name not in ("quote", "toJson"):
            raise TemplateError(f"not known here: {name}")
        value = json.dumps(_text(value) if name == "quote" else value)
    return value


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)
