"""Fills in fixtures/language.json what jinja2 makes of its small templates.

    python make_language_fixture.py    (needs jinja2)

To add a case, add {"group": ..., "source": ..., "context": {...}} to the file and run this.
"""

import json
import pathlib

from jinja_reference import render

FIXTURE = pathlib.Path(__file__).parent / "fixtures" / "language.json"


def main():
    cases = json.loads(FIXTURE.read_text())
    for case in cases:
        for outcome in ("expected", "error"):
            case.pop(outcome, None)
        case.update(render(case["source"], case["context"]))
    FIXTURE.write_text(
        "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "of them errors")


if __name__ == "__main__":
    main()
