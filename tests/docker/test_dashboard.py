"""What Prometheus scrapes and Grafana draws is what a running server says."""

import json
import re
import sys

import grpc
import pytest
import requests
import yaml

from dockerfile import ROOT

sys.path.insert(0, str(ROOT / "tests" / "server" / "e2e"))
from server_process import Server  # noqa: E402

DOCKER = ROOT / "docker"
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "pbserve.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def series():
    """{name: [label text]} of a server that has answered."""
    with Server() as running:
        running.complete("The ls command", max_tokens=4)
        running.post("/v1/completions", {"prompt": "x", "max_tokens": 10**9})  # refused
        with grpc.insecure_channel(running.grpc_address) as channel:
            channel.unary_unary("/pbserve.v1.Inference/GetLoad")(b"", timeout=30)
        text = requests.get(running.url + "/metrics", timeout=30).text
    found = {}
    for name, labels in re.findall(r"^([\w:]+)(?:\{(.*)\})? ", text, re.MULTILINE):
        found.setdefault(name, []).append(labels)
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_series_and_labels_that_exist(query, series):
    selectors = re.findall(r"((?:pbserve:|http_|grpc_)\w+)\{([^}]*)\}", query)
    assert selectors
    for name, matchers in selectors:
        assert name in series, name
        labels = re.findall(r'(\w+)(=~?)"([^"]*)"', matchers)
        for label, operator, value in labels:
            pattern = f'{label}="' + (f'{value}"' if operator == "=" or "$" not in value else "")
            pattern = re.escape(pattern) if operator == "=" else pattern
            assert any(re.search(pattern, line) for line in series[name]), (name, pattern)
    for label in re.findall(r"by \((\w+)\)", query):
        assert label == "le" or any(
            f'{label}="' in line for name, _ in selectors for line in series[name]), label


def test_panels_do_not_overlap_and_speak_to_the_provisioned_source():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    (source,) = yaml.safe_load(
        (DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}


def test_compose_names_what_prometheus_and_grafana_ask():
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    (job,) = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target == "pbserve:9000" and "pbserve" in services
    (source,) = yaml.safe_load(
        (DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in services
    (provider,) = yaml.safe_load(
        (DOCKER / "grafana/provisioning/dashboards/pbserve.yaml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
