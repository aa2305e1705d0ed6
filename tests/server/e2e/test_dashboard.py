"""The Grafana dashboard draws what a running server exports, and nothing else."""

import json
import re

import pytest
import requests

from server_process import ROOT

DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "pbserve.json").read_text())
METRIC = re.compile(r"\b((?:pbserve:|process_|http_|grpc_)\w+)(\{[^}]*\})?")


def queries():
    """(where, PromQL) of every panel and variable."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


@pytest.fixture(scope="module")
def exported(server):
    """name -> names of its labels, of every sample."""
    server.complete("The ls command", max_tokens=2)
    samples = {}
    for line in requests.get(server.url + "/metrics", timeout=30).text.splitlines():
        if found := METRIC.match(line):
            labels = re.findall(r"(\w+)=", found[2] or "")
            samples.setdefault(found[1], set()).update(labels)
    return samples


@pytest.mark.parametrize("where, query", list(queries()))
def test_every_query_names_metrics_and_labels_that_exist(exported, where, query):
    found = METRIC.findall(query)
    assert found, f"{where} asks for nothing"
    for name, selector in found:
        assert name in exported, f"{where}: {name}"
        for label in re.findall(r"(\w+)=", selector):
            assert label in exported[name] | {"job"}, f"{where}: {name} has no label {label}"


def test_panels_do_not_overlap():
    cells = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(cells)) == len(cells)
